"""Tables that users upload, to be the input of runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Path, Query, Request, Response, UploadFile
from fastapi.responses import FileResponse
from pydantic import Field
from sqlalchemy import select

from launchpad import datasets
from launchpad.api.common import NOTHING, Config, Max, Offset, Search, contains, count
from launchpad.auth import Launcher, Reader, Store
from launchpad.errors import conflict, forbidden
from launchpad.folders import dataset_file
from launchpad.launches import new_id
from launchpad.shapes import MOST, Shape, Time
from launchpad.store import Dataset, DatasetVersion

router = APIRouter(prefix="/datasets", tags=["datasets"])
Id = Annotated[str, Path(alias="datasetId")]


class DatasetShape(Shape):
    id: str
    name: str
    description: str | None
    media_type: str | None
    deleted: bool = False
    date_created: Time
    last_updated: Time
    version: int | None = None


class DatasetAnswer(Shape):
    dataset: DatasetShape


class Datasets(Shape):
    datasets: list[DatasetShape]
    total_size: int


class DatasetRequest(Shape):
    name: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}$")
    description: str | None = Field(None, max_length=1000)


class DatasetVersionShape(Shape):
    dataset_id: str
    dataset_name: str
    dataset_description: str | None
    version: int
    file_name: str
    media_type: str
    has_header: bool
    url: str
    disabled: bool = False
    date_created: Time
    last_updated: Time


class DatasetVersionAnswer(Shape):
    version: DatasetVersionShape


class DatasetVersions(Shape):
    versions: list[DatasetVersionShape]


@router.get("")
def list_datasets(caller: Reader, session: Store, max: Max = 50, offset: Offset = 0, search: Search = None) -> Datasets:  # noqa: A002 - the Platform's name
    found = select(Dataset).where(Dataset.user_id == caller.user_id).order_by(Dataset.date_created.desc(), Dataset.id)
    if search:
        found = found.where(Dataset.name.like(contains(search), escape="\\"))
    page = session.scalars(found.limit(max).offset(offset))
    return Datasets(datasets=[DatasetShape.model_validate(row) for row in page], total_size=count(session, found))


@router.post("")
def create_dataset(caller: Launcher, session: Store, body: DatasetRequest) -> DatasetAnswer:
    if session.scalar(select(Dataset.id).where(Dataset.user_id == caller.user_id, Dataset.name == body.name)) is not None:
        raise conflict(f"You have a dataset called {body.name} already.")
    dataset = Dataset(id=new_id(), user_id=caller.user_id, name=body.name, description=body.description)
    session.add(dataset)
    session.commit()
    return DatasetAnswer(dataset=DatasetShape.model_validate(dataset))


@router.delete("/{datasetId}", status_code=204)
def delete_dataset(caller: Launcher, session: Store, settings: Config, dataset_id: Id) -> Response:
    dataset = datasets.own(session, caller, dataset_id)
    datasets.delete(session, settings, dataset)
    return NOTHING


@router.post("/{datasetId}/upload")
def upload(
    caller: Launcher,
    session: Store,
    settings: Config,
    request: Request,
    dataset_id: Id,
    file: Annotated[UploadFile, File(description="CSV or TSV")],
    header: Annotated[bool, Query(description="whether the first line names the columns")] = False,
) -> DatasetVersionAnswer:
    dataset = datasets.own(session, caller, dataset_id)
    version = datasets.add_version(session, settings, dataset, file.filename or "", file.file, header=header)
    return DatasetVersionAnswer(version=_shape(request, dataset, version))


@router.get("/{datasetId}/versions")
def versions(caller: Reader, session: Store, request: Request, dataset_id: Id) -> DatasetVersions:
    dataset = datasets.own(session, caller, dataset_id)
    found = session.scalars(select(DatasetVersion).where(DatasetVersion.dataset_id == dataset_id).order_by(DatasetVersion.version))
    return DatasetVersions(versions=[_shape(request, dataset, version) for version in found])


@router.get("/{datasetId}/v/{version}/n/{fileName}", response_class=FileResponse)
def download(
    caller: Reader,
    session: Store,
    settings: Config,
    dataset_id: Id,
    version: Annotated[int, Path(ge=0, le=MOST)],
    file_name: Annotated[str, Path(alias="fileName")],
) -> FileResponse:
    datasets.own(session, caller, dataset_id)
    found = session.get(DatasetVersion, (dataset_id, version))
    if found is None or found.file_name != file_name:
        raise forbidden()
    return FileResponse(dataset_file(settings, dataset_id, version, found.file_name), media_type=found.media_type, filename=found.file_name)


def _shape(request: Request, dataset: Dataset, version: DatasetVersion) -> DatasetVersionShape:
    fields = {name: getattr(version, name) for name in ("dataset_id", "version", "file_name", "media_type", "has_header", "date_created")}
    return DatasetVersionShape(
        **fields,
        dataset_name=dataset.name,
        dataset_description=dataset.description,
        url=datasets.address(str(request.base_url), version),
        last_updated=version.date_created,
    )
