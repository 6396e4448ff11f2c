"""Who ended a session in an application's place

Revision: 0004, after 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("presence_event", sa.Column("actor", sa.Text(), nullable=True))


def downgrade() -> None:
    op.execute("ALTER TABLE presence_event DROP COLUMN actor")
