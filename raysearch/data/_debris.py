"""Files and folders that systems and programs leave among a person's own."""

from __future__ import annotations

import re
from fnmatch import translate

PASSED_OVER = "file{s} or folder{s} of systems and programs {are} passed over"

# Shell patterns, compared without regard to case. What begins with a dot is hidden and passed over
# in any case: .DS_Store, ._*, .git, .ipynb_checkpoints, .Trashes, .AppleDouble, .fuse_hidden*, ...
_PATTERNS = (
    # Windows
    "thumbs.db*", "ehthumbs*.db", "desktop.ini", "$recycle.bin", "recycler", "recycled",
    "system volume information", "zbthumbnail.info", "picasa.ini", "*.lnk",
    # macOS
    "__macosx", "icon\r", "network trash folder", "temporary items", "thevolumesettingsfolder",
    # Network drives: Synology, QNAP, NetApp
    "@eadir", "#recycle", "#snapshot", "*@synoeastream", "*@synoresource", "@tmp", "@recycle",
    "@recently-snapshot", "@recyclebin", "@sharebin", "@transcode", "~snapshot",
    # Linux file systems
    "lost+found",
    # Editors, office programs, notebooks, Python
    "~$*", "~*.tmp", "?*~", "#?*#", "*.swp", "*.swo", "*.bak", "*.orig",
    "__pycache__",
    # Downloads, copies and synchronisation that have not ended, or collided
    "*.tmp", "*.temp", "*.part", "*.partial", "*.crdownload", "*.download", "*.filepart",
    "*.opdownload", "*.aria2", "*.!ut", "*.lock", "*.incomplete", "*.sync-conflict-*",
    "sync.ffs_db", "_gsdata_",
    # Spark and Hadoop
    "_success", "_temporary", "_committed_*", "_started_*", "*.crc",
)  # fmt: skip
_DEBRIS = re.compile("|".join(translate(pattern) for pattern in _PATTERNS), re.IGNORECASE)


def is_debris(name: str) -> bool:
    """Whether a file or folder of this name is passed over: none of the person's own is so called.

    Args:
        name: without the folders that it lies in.
    """
    return name.startswith(".") or _DEBRIS.match(name) is not None
