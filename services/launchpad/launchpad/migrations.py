"""The database's tables, made or brought up to date when it is opened. SQLite's user_version counts the migrations that a database has had."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, MetaData

from launchpad.errors import ApiError
from launchpad.locks import claim

# Statements that lead from one version to the next, oldest first. One that was released is not changed any more.
MIGRATIONS = [
    [  # the progress of each process apart from the run's: a list of runs does not show it
        "ALTER TABLE workflow ADD COLUMN workflow_progress JSON NOT NULL DEFAULT '{}'",
        "ALTER TABLE workflow ADD COLUMN processes_progress JSON NOT NULL DEFAULT '[]'",
        "ALTER TABLE workflow ADD COLUMN total_processes INTEGER NOT NULL DEFAULT 0",
        """UPDATE workflow SET workflow_progress = coalesce(json_extract(progress, '$.workflowProgress'), '{}'),
               processes_progress = coalesce(json_extract(progress, '$.processesProgress'), '[]'),
               total_processes = coalesce(json_extract(progress, '$.totalProcesses'), 0)""",
        "ALTER TABLE workflow DROP COLUMN progress",
    ],
]
LATEST = len(MIGRATIONS)


def migrate(connection: Connection, tables: MetaData, data: Path) -> None:
    """All of it or nothing. Raises ApiError 409 for a database of a later launchpad, and while another launchpad works in the directory data."""
    version = _version(connection)
    if version > LATEST:
        raise ApiError(409, f"the database was written by a later launchpad (version {version}; this one knows {LATEST}): update the launchpad")
    if version < LATEST:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # whoever comes at the same time waits here, and finds it done
        columns = set(connection.exec_driver_sql("SELECT name FROM pragma_table_info('workflow')").scalars())
        if not columns:
            tables.create_all(connection)
        elif _version(connection) < LATEST:
            with claim(data):
                _change(connection, columns)
        connection.exec_driver_sql(f"PRAGMA user_version = {LATEST}")
        connection.commit()


def _change(connection: Connection, columns: set[str]) -> None:
    # one that was made after the first migration, and before they were counted, has its columns
    version = max(_version(connection), int("workflow_progress" in columns))
    for statement in (statement for migration in MIGRATIONS[version:] for statement in migration):
        connection.exec_driver_sql(statement)


def _version(connection: Connection) -> int:
    found: int = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    return found
