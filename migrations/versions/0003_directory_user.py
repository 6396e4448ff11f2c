"""Who the users are

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def guid() -> sa.types.TypeEngine[str]:
    return sa.String(36).with_variant(postgresql.UUID(as_uuid=False), "postgresql")


def upgrade() -> None:
    op.create_table(
        "directory_user",
        sa.Column("tenant_id", guid(), nullable=False),
        sa.Column("user_id", guid(), nullable=False),
        sa.Column("user_principal_name", sa.Text(), nullable=False),
        sa.Column("user_principal_name_lower", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.CheckConstraint("user_principal_name_lower = lower(user_principal_name)", name="lower"),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", name="pk_directory_user"),
    )
    op.create_index(
        "ix_directory_user_tenant_id_user_principal_name_lower",
        "directory_user",
        ["tenant_id", "user_principal_name_lower"],
        unique=True,
    )


def downgrade() -> None:
    op.drop_table("directory_user")
