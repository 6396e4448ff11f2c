"""A way to those whose names begin alike, in whichever tenant

Revision: 0006, after 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

NAME = "ix_directory_user_user_principal_name_lower"


def upgrade() -> None:
    op.create_index(
        NAME,
        "directory_user",
        ["user_principal_name_lower"],
        postgresql_ops={"user_principal_name_lower": "text_pattern_ops"},
    )


def downgrade() -> None:
    op.drop_index(NAME, "directory_user")
