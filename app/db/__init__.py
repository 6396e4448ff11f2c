"""The tables, and all the SQL that is hot."""
