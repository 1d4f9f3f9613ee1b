"""Which part of a data set a folder or a file is, by its name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from raysearch.errors import RaysearchError

PARTS = ("train", "val", "test")
_WORDS = {  # of other languages without their accents
    "train": "train training trn trainval trainings entrainement apprentissage entrenamiento "
    "addestramento treino treinamento 训练 訓練 学習 훈련 학습",
    "val": "val valid validation validate validating dev devel development eval evaluation "
    "evaluate evaluating validierung validierungs validacion validazione validacao validatie "
    "验证 驗證 検証 검증",
    "test": "test tests testing tst holdout heldout prueba pruebas teste testes 测试 測試 テスト "
    "테스트",
}
_PART_OF = {word: part for part, words in _WORDS.items() for word in words.split()}
_LONGEST_FIRST = sorted(_PART_OF, key=len, reverse=True)
_ENDING = "set|sets|data|dataset|split|images?|imgs?|daten|bilder|集|数据|数据集"
_GLUED = re.compile(rf"({'|'.join(_LONGEST_FIRST)})(?:{_ENDING})")
_SILENT = (  # words beside the part's that say nothing, as in my_train_images
    "set sets data dataset split splits subset part partition image images img imgs picture "
    "pictures photo photos sample samples example examples folder dir files my the"
)
_EMPTY = frozenset(_SILENT.split())
_HOLD_OUT = re.compile(r"(?<![A-Za-z])(?:hold|held)[\W_]?out", re.IGNORECASE)
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")


@dataclass
class NamedParts:
    """Names, by the part that they are of.

    Attributes:
        parts: for train, val and test the names that mean it, as far as there are any.
        others: the names that mean none, in their order.
    """

    parts: dict[str, list[str]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """All names that mean a part."""
        return [name for names in self.parts.values() for name in names]

    def one_each(self, where: object) -> dict[str, str]:
        """The name of each part.

        Raises:
            RaysearchError: several mean one part; they are named.
        """
        for part, names in self.parts.items():
            if len(names) > 1:
                shown = " and ".join(repr(name) for name in names[:3])
                raise RaysearchError(
                    f"{where}: {shown} may each be the {part} part: keep one, or rename the others"
                )
        return {part: names[0] for part, names in self.parts.items()}


def part_words(name: str, silent: Collection[str] = ()) -> tuple[str, tuple[str, ...]] | None:
    """The part that a name may mean, and the words that it has besides.

    In any case and with any signs between the words: `Train`, `VALIDATION`, `test-set`,
    `trainImages2017`, `hold_out`, `Validación`. A year or another number does not count.

    Args:
        name: of a folder, or of a file without its extension.
        silent: further words that do not count.

    Returns:
        "train", "val" or "test", and the other words, lower case, in their order; None where no
        word means a part, or two mean different ones.
    """
    signs = unicodedata.normalize("NFKD", name)
    plain = unicodedata.normalize("NFC", "".join(c for c in signs if not unicodedata.combining(c)))
    plain = _HOLD_OUT.sub("holdout", plain)
    part, besides = None, []
    for token in (token.lower() for token in _TOKEN.findall(plain)):
        glued = _GLUED.fullmatch(token)
        found = _PART_OF.get(glued[1] if glued else token)
        if found is None:
            if not token.isdigit() and token not in _EMPTY and token not in silent:
                besides.append(token)
        elif part is None or (part, found) == ("train", "val"):  # train_val is trainval
            part = part or found
        else:
            return None
    return None if part is None else (part, tuple(besides))


def name_parts(names: Iterable[str], where: object, silent: Collection[str] = ()) -> NamedParts:
    """Which of the names in a folder mean which part.

    A name with words besides, as `flowers_train`, counts only beside others of the same words that
    mean other parts (`flowers_test`), train among them, and where no name means train by itself.

    Args:
        names: what lies in the folder, files without their extensions.
        where: the folder, for messages.
        silent: further words that do not count.

    Raises:
        RaysearchError: there are several such sets.
    """
    ordered = list(names)
    found = {name: part_words(name, silent) for name in ordered}
    accepted: tuple[str, ...] = ()
    if not any(words == ("train", ()) for words in found.values()):
        sets: dict[tuple[str, ...], set[str]] = {}
        for words in found.values():
            if words is not None:
                sets.setdefault(words[1], set()).add(words[0])
        whole = [besides for besides, parts in sets.items() if "train" in parts and len(parts) > 1]
        if len(whole) > 1:
            shown = " and ".join(" ".join(one) for one in whole)
            raise RaysearchError(
                f"{where}: there are several data sets, {shown}: put each into a folder of its own"
            )
        accepted = whole[0] if whole else ()
    named = NamedParts()
    for name in ordered:
        words = found[name]
        if words is not None and words[1] in ((), accepted):
            named.parts.setdefault(words[0], []).append(name)
        else:
            named.others.append(name)
    return named
