"""Folders as they are read: without debris, and with links checked."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cache
from pathlib import Path

from PIL import Image

from raysearch.data._image import formats
from raysearch.data._notices import Notices
from raysearch.errors import RaysearchError

PASSED_OVER = "file{s} or folder{s} of systems and programs {are} passed over"

# Shell patterns, compared without regard to case. What begins with a dot is hidden and passed over
# in any case: .DS_Store, ._*, .git, .ipynb_checkpoints, .Trashes, .AppleDouble, .fuse_hidden*, ...
_PATTERNS = (
    # Windows
    "thumbs.db*", "ehthumbs*.db", "desktop.ini", "$recycle.bin", "recycler", "recycled",
    "system volume information", "zbthumbnail.info", "picasa.ini", "photothumb.db",
    "*.lnk", "*.url", "*zone.identifier", "found.[0-9][0-9][0-9]", "wpsystem", "_vti_cnf",
    # macOS
    "__macosx", "icon\r", "*.icloud", "*.webloc", "network trash folder", "temporary items",
    "thevolumesettingsfolder",
    # Network drives: Synology, QNAP, NetApp
    "@eadir", "#recycle", "#snapshot", "*@synoeastream", "*@synoresource", "@tmp", "@recycle",
    "@recently-snapshot", "@recyclebin", "@sharebin", "@transcode", "@__thumb", "~snapshot",
    # Linux file systems
    "lost+found",
    # Editors, office programs, notebooks, Python
    "~$*", "~*.tmp", "?*~", "#?*#", "*.swp", "*.swo", "*.bak", "*.orig",
    "__pycache__", "cvs", "node_modules",
    # Downloads, copies and synchronisation that have not ended, or collided
    "*.tmp", "*.temp", "*.part", "*.partial", "*.crdownload", "*.download", "*.filepart",
    "*.opdownload", "*.aria2", "*.!ut", "*.!qb", "*.lock", "*.incomplete", "*.sync-conflict-*",
    "sync.ffs_db", "_gsdata_",
    # Spark and Hadoop
    "_success", "_temporary", "_committed_*", "_started_*", "*.crc",
)  # fmt: skip
_DEBRIS = re.compile("|".join(translate(pattern) for pattern in _PATTERNS), re.IGNORECASE)
_OUT = "is a symbolic link out of data.root; data.links=anywhere follows such links"


@dataclass(frozen=True)
class Level:
    """What lies in a folder, by path, in the order of the names.

    Attributes:
        folders: those in it.
        images: files that may be images (one without an extension may).
        others: other files, and why each is no image.
    """

    folders: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)

    @property
    def only(self) -> str | None:
        """The folder in it, where that is all there is but for files that are no images."""
        return self.folders[0] if len(self.folders) == 1 and not self.images else None


class Tree:
    """The folders below a data set's own; each is scanned once.

    Symbolic links, to images as to folders, count as what they lead to, as long as that lies in
    the root, which may be a link itself; a folder that is reached twice on one walk counts once.

    Args:
        root: the data set's folder.
        notices: gains the debris that is passed over, see `is_debris`.
        links: "inside", or "anywhere" to follow links out of `root`, too.
        apart: a file that is read elsewhere, as if it were not there.
    """

    def __init__(
        self, root: Path, notices: Notices, links: str = "inside", apart: Path | None = None
    ) -> None:
        self._apart = str(apart)
        self._root, self._notices = str(root), notices
        self._home = os.path.realpath(root) if links == "inside" else None
        self._levels: dict[str, Level] = {}

    def look(self, folder: str) -> Level:
        """What lies in a folder.

        Raises:
            RaysearchError: it cannot be read, or a folder in it is a link out of the root.
        """
        if folder not in self._levels:
            self._levels[folder] = self._scan(folder)
        return self._levels[folder]

    def walk(self, folder: str) -> tuple[list[str], list[str]]:
        """The images at any depth below a folder, and what is wrong with other files."""
        images: list[str] = []
        others: list[str] = []
        folders = [folder]  # to go through, from the last
        seen: set[tuple[int, int]] = set()
        while folders:
            path = folders.pop()
            level = self.look(path)
            place = os.stat(path)
            if (place.st_dev, place.st_ino) in seen:
                continue
            seen.add((place.st_dev, place.st_ino))
            images += level.images
            others += level.others.values()
            folders += reversed(level.folders)
        return images, others

    def has_images(self, folder: str) -> bool:
        """Whether there is an image anywhere below a folder."""
        return bool(self.walk(folder)[0])

    def relative(self, path: str) -> str:
        """A path as it is shown: below the root."""
        return os.path.relpath(path, self._root)

    def _scan(self, folder: str) -> Level:
        level = Level()
        try:
            with os.scandir(folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            raise RaysearchError(f"{folder}: {error.strerror}") from error
        for entry in entries:
            if entry.path == self._apart:
                continue
            if is_debris(entry.name):
                self._notices.add(PASSED_OVER, self.relative(entry.path))
                continue
            is_folder = _is_folder(entry)
            extension = os.path.splitext(entry.name)[1].lower()
            if not is_folder and extension and extension not in extensions():
                level.others[entry.path] = f"{entry.path} is not an image by its name"
            elif self._leads_out(entry):
                if is_folder:
                    raise RaysearchError(f"{entry.path} {_OUT}")
                level.others[entry.path] = f"{entry.path} {_OUT}"
            else:
                (level.folders if is_folder else level.images).append(entry.path)
        return level

    def _leads_out(self, entry: os.DirEntry[str]) -> bool:
        if self._home is None or not entry.is_symlink():
            return False
        return os.path.commonpath([os.path.realpath(entry.path), self._home]) != self._home


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


@cache
def extensions() -> frozenset[str]:
    """File name extensions of the formats that are read, lower case, with the dot."""
    known = Image.registered_extensions()
    return frozenset(extension for extension, name in known.items() if name in formats())


def is_debris(name: str) -> bool:
    """Whether a file or folder of this name is passed over: none of the person's own is so called.

    Args:
        name: without the folders that it lies in.
    """
    return name.startswith(".") or _DEBRIS.match(name) is not None
