"""What a command line of ``study`` means: the file, the folder and the cells that it picks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from red_lightning.cli import configs
from red_lightning.cli.parser import REPLICAS
from red_lightning.errors import UsageError, nearest
from red_lightning.studies.cell_runs import StudyFolder
from red_lightning.studies.cells import Cell, Files, expand, pick, setting
from red_lightning.studies.setting_selection import Choice, Group, choose, trials, with_choice
from red_lightning.studies.study_file import Study, read_study


@dataclass
class Plan:
    """A study with its folder and the cells that a command line picks."""

    study: Study
    files: Files
    folder: StudyFolder
    changes: dict[str, Any]
    cells: list[Cell]
    trials: list[Cell]

    @classmethod
    def read(cls, options: Any) -> "Plan":
        """Read the file and make the cells."""
        study = read_study(_find(options.file))
        files = files_beside(study.path)
        changes = pairs(options.set, "--set")
        cells = pick(expand(study, files, changes), study.axes, options.only)
        if any(setting(cell.experiment, "model.method.replicas") not in (None, 1) for cell in cells):
            raise UsageError(f"{study.path}: {REPLICAS}")
        folder = StudyFolder(Path(options.folder) / study.name)
        folder.require(study)
        return cls(study, files, folder, changes, cells, trials(study, cells, files, changes) if study.select else [])

    def choices(self) -> dict[Group, Choice]:
        """What the validation split has chosen so far."""
        return choose(self.study, self.trials, self.folder.state) if self.study.select else {}

    def ready(self) -> list[Cell]:
        """The cells whose settings are known."""
        if self.study.select is None:
            return self.cells
        return with_choice(self.study, self.cells, self.trials, self.choices(), self.files, self.changes)


def files_beside(study: Path) -> Files:
    """Finds an experiment beside the study's file, here, or among those that ship; a part here, or among those.

    The runs themselves find a part so: they are run from here.
    """
    return Files(cache(lambda name: _experiment(name, study.parent)), cache(_part))


def _find(name: str) -> Path:
    """A study file: a path, or the name of one that ships."""
    if Path(name).is_file():
        return Path(name)
    shipped = configs.studies()
    stem = Path(name).name.removesuffix(".yaml")
    if stem not in shipped:
        raise UsageError(f"the study '{name}' is neither a file nor one that ships: {nearest(stem, shipped)}")
    return shipped[stem]


def _experiment(name: str, beside: Path) -> tuple[str, str]:
    """How ``--config`` names an experiment, and its whole text."""
    path = beside / name if name.endswith(".yaml") and (beside / name).is_file() else configs.find(name)
    shipped = configs.experiments().get(path.stem)
    shown = path.stem if shipped and path.resolve() == shipped.resolve() else str(path)
    return shown, configs.self_contained(path)


def _part(name: str) -> str:
    (path,) = configs.with_files([name])
    return Path(path).read_text(encoding="utf-8")


def pairs(texts: Sequence[str], option: str) -> dict[str, Any]:
    """Settings that were given as KEY=VALUE, the values read as YAML.

    Raises:
        UsageError: Something has no equals sign; names the option.
    """
    if odd := [text for text in texts if "=" not in text]:
        raise UsageError(f"{option} takes KEY=VALUE, not '{odd[0]}'")
    read: dict[str, Any] = {}
    for text in texts:
        key, _, value = text.partition("=")
        parsed: Mapping[str, Any] = OmegaConf.to_container(OmegaConf.create(f"value: {value}"))  # type: ignore[assignment]
        read[key] = parsed["value"]
    return read
