"""What the launchpad remembers: SQLite through SQLAlchemy."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from sqlalchemy import JSON, ForeignKey, Index, UniqueConstraint, create_engine, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, Session, mapped_column, sessionmaker

from launchpad.migrations import migrate

Object = dict[str, Any]
Sessions = sessionmaker[Session]


def now() -> dt.datetime:
    """UTC, without a zone, as SQLite keeps it."""
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True):
    type_annotation_map = {Object: JSON, list[Object]: JSON, list[str]: JSON, list[int]: JSON}  # noqa: RUF012


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    user_name: Mapped[str] = mapped_column(unique=True)


class Token(Base):
    """A key to the API; only its hash is kept."""

    __tablename__ = "token"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"))
    name: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    scope: Mapped[str]
    expires: Mapped[dt.datetime | None] = mapped_column(default=None)
    last_used: Mapped[dt.datetime | None] = mapped_column(default=None)
    date_created: Mapped[dt.datetime] = mapped_column(default_factory=now)


class Pipeline(Base):
    """A pipeline that can be launched, with what its launches begin with."""

    __tablename__ = "pipeline"
    pipeline_id: Mapped[int] = mapped_column(primary_key=True, init=False)
    name: Mapped[str] = mapped_column(unique=True)
    repository: Mapped[str]
    description: Mapped[str | None] = mapped_column(default=None)
    icon: Mapped[str | None] = mapped_column(default=None)
    launch: Mapped[Object] = mapped_column(default_factory=dict)
    label_ids: Mapped[list[int]] = mapped_column(default_factory=list)
    date_created: Mapped[dt.datetime] = mapped_column(default_factory=now)
    last_updated: Mapped[dt.datetime] = mapped_column(default_factory=now)


class Workflow(Base):
    """A run. Times are UTC, duration is in milliseconds. Deferred is what a list of runs does not show."""

    __tablename__ = "workflow"
    __table_args__ = (
        Index("workflow_of_user", "user_id", "submit"),
        Index("workflow_name", "user_id", "run_name", unique=True, sqlite_where=text("ours")),
        Index("workflow_status", "status"),
        Index("workflow_launch_dir", "launch_dir"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"))
    user_name: Mapped[str]
    run_name: Mapped[str]
    session_id: Mapped[str]
    project_name: Mapped[str]
    repository: Mapped[str]
    launch_dir: Mapped[str]
    work_dir: Mapped[str]
    output_dir: Mapped[str | None] = mapped_column(default=None)
    status: Mapped[str] = mapped_column(default="SUBMITTED")
    launch: Mapped[Object] = mapped_column(default_factory=dict, deferred=True)  # the request, as GET /workflow/{id}/launch answers it
    params: Mapped[Object] = mapped_column(default_factory=dict)
    resume: Mapped[bool] = mapped_column(default=False)
    revision: Mapped[str | None] = mapped_column(default=None)
    commit_id: Mapped[str | None] = mapped_column(default=None)
    script_name: Mapped[str | None] = mapped_column(default=None)
    profile: Mapped[str | None] = mapped_column(default=None)
    container: Mapped[str | None] = mapped_column(default=None)
    config_text: Mapped[str | None] = mapped_column(default=None)
    config_files: Mapped[list[str]] = mapped_column(default_factory=list)
    manifest: Mapped[Object | None] = mapped_column(default=None)
    nextflow: Mapped[Object | None] = mapped_column(default=None)
    command_line: Mapped[str | None] = mapped_column(default=None)
    stats: Mapped[Object | None] = mapped_column(default=None)
    workflow_progress: Mapped[Object] = mapped_column(default_factory=dict)
    processes_progress: Mapped[list[Object]] = mapped_column(default_factory=list, deferred=True)
    total_processes: Mapped[int] = mapped_column(default=0)
    label_ids: Mapped[list[int]] = mapped_column(default_factory=list)
    submit: Mapped[dt.datetime] = mapped_column(default_factory=now)
    start: Mapped[dt.datetime | None] = mapped_column(default=None)
    complete: Mapped[dt.datetime | None] = mapped_column(default=None)
    duration: Mapped[int | None] = mapped_column(default=None)
    success: Mapped[bool | None] = mapped_column(default=None)
    exit_status: Mapped[int | None] = mapped_column(default=None)
    error_message: Mapped[str | None] = mapped_column(default=None)
    error_report: Mapped[str | None] = mapped_column(default=None)
    date_created: Mapped[dt.datetime] = mapped_column(default_factory=now)
    last_updated: Mapped[dt.datetime] = mapped_column(default_factory=now)
    # what the runner needs
    ours: Mapped[bool] = mapped_column(default=True)  # False: started elsewhere, known by what nf-tower sends
    cancelled: Mapped[dt.datetime | None] = mapped_column(default=None)
    cancel_force: Mapped[bool] = mapped_column(default=False)
    trace_read: Mapped[int] = mapped_column(default=0)  # bytes of the trace file
    log_read: Mapped[int] = mapped_column(default=0)  # bytes of the log file


class Task(Base):
    """A task of a run, known by its hash: the log tells of it first, without its id, the trace file when it has ended."""

    __tablename__ = "task"
    workflow_id: Mapped[str] = mapped_column(ForeignKey("workflow.id", ondelete="CASCADE"), primary_key=True)
    hash: Mapped[str] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(index=True)
    status: Mapped[str]
    name: Mapped[str]
    process: Mapped[str]
    tag: Mapped[str | None] = mapped_column(default=None)
    exit: Mapped[int | None] = mapped_column(default=None)
    attempt: Mapped[int] = mapped_column(default=1)
    submit: Mapped[dt.datetime | None] = mapped_column(default=None)
    start: Mapped[dt.datetime | None] = mapped_column(default=None)
    complete: Mapped[dt.datetime | None] = mapped_column(default=None)
    duration: Mapped[int | None] = mapped_column(default=None)
    realtime: Mapped[int | None] = mapped_column(default=None)
    workdir: Mapped[str | None] = mapped_column(default=None)
    measured: Mapped[Object] = mapped_column(default_factory=dict)  # processors, memory, bytes: the other fields of the API's task


class Dataset(Base):
    __tablename__ = "dataset"
    __table_args__ = (UniqueConstraint("user_id", "name"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), index=True)
    name: Mapped[str]
    description: Mapped[str | None] = mapped_column(default=None)
    media_type: Mapped[str | None] = mapped_column(default=None)
    date_created: Mapped[dt.datetime] = mapped_column(default_factory=now)
    last_updated: Mapped[dt.datetime] = mapped_column(default_factory=now)


class DatasetVersion(Base):
    __tablename__ = "dataset_version"
    dataset_id: Mapped[str] = mapped_column(ForeignKey("dataset.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    file_name: Mapped[str]
    media_type: Mapped[str]
    has_header: Mapped[bool]
    size: Mapped[int]
    date_created: Mapped[dt.datetime] = mapped_column(default_factory=now)


class Action(Base):
    """A launch that is kept, to be made again with other parameters."""

    __tablename__ = "action"
    __table_args__ = (UniqueConstraint("user_id", "name"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), index=True)
    name: Mapped[str]
    launch: Mapped[Object]
    last_seen: Mapped[dt.datetime | None] = mapped_column(default=None)
    date_created: Mapped[dt.datetime] = mapped_column(default_factory=now)
    last_updated: Mapped[dt.datetime] = mapped_column(default_factory=now)


class Label(Base):
    __tablename__ = "label"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), index=True)
    name: Mapped[str]
    value: Mapped[str | None] = mapped_column(default=None)
    resource: Mapped[bool] = mapped_column(default=False)


def open_store(path: Path) -> Sessions:
    """Open the database, made if it is not there; readable by its owner only.

    Raises ApiError 409 for that of a later launchpad, and for one that is to be changed while another launchpad works with it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    # a request keeps its connection while it waits for a thread: with fewer connections than requests they would wait for each other
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30}, max_overflow=-1, json_deserializer=from_json)
    event.listen(engine, "connect", _configure)
    with engine.connect() as connection:
        migrate(connection, Base.metadata, path.parent)
    return sessionmaker(engine, expire_on_commit=False)


def _configure(connection: Any, _: object) -> None:
    """Readers do not wait for the writer, and nothing that was committed is lost when the service is killed."""
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
