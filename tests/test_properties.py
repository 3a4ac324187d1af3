"""What must hold whatever comes in, on what hypothesis makes up; `make fuzz` tries far more."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import example, given
from hypothesis import strategies as st

from fuzz import properties
from lazyneg.core.settings import BY_NAME, Settings
from tests.core.test_settings import valid_settings

_PARTS = st.sampled_from(
    ["<lazyneg:", ">", ":", "5", "25%", "<LazyNeg ", "girl", "\n", "Negative prompt: ", "Steps: 20",
     ", ", "Sampler: Euler a", "Seed: 1", '"', "\\", "LazyNeg critical step: ", "LazyNeg area: ",
     "Template: ", "\u0665", "\ufeff"]
)  # fmt: skip
_TEXTS = st.lists(_PARTS | st.text(max_size=5), max_size=30).map("".join)
_SWEEPS = st.lists(
    st.sampled_from(["0", "-", ",", "63", ".5", "1", "never", " ", "\u0665", str(2**64)]),
    max_size=12,
).map("".join)  # fmt: skip
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 100)
    | st.floats()
    | st.text()
    | st.sampled_from([choice for setting in BY_NAME.values() for choice in setting.choices]),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=3,
)


@given(st.dictionaries(st.sampled_from([*BY_NAME]) | st.text(max_size=3), _VALUES), st.booleans())
def test_arguments(values: Mapping[str, object], enabled: bool) -> None:
    properties.arguments(values)
    properties.arguments({**values, "enabled": enabled})


@given(_TEXTS)
def test_infotexts(text: str) -> None:
    properties.infotexts(text)


@given(_TEXTS, _TEXTS, valid_settings() | st.just(Settings()))
def test_tags(prompt: str, negative: str, settings: Settings) -> None:
    properties.tags(prompt, negative, settings)


@given(_SWEEPS)
@example("0-63,1-5")
@example("0.3,.2,0.7,0.4")
def test_sweep_options(text: str) -> None:
    properties.sweep_options(text)


@given(
    st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"GIF89a", b""]),
    st.lists(
        st.binary(max_size=12)
        | st.sampled_from([b"tEXtparameters\0", b"zTXt", b"iTXt", b"eXIf", b"Exif\0\0", b"II*\0",
                           b"UNICODE\0", b"\0\0\0\x10", b"\xff\xfe", b"\x69\x87", b"\x86\x92"]),
        max_size=12,
    ),
)  # fmt: skip
def test_files(start: bytes, parts: list[bytes]) -> None:
    properties.files(start + b"".join(parts))


@given(_TEXTS)
def test_written_pictures(text: str) -> None:
    properties.written_pictures(text.encode("utf-8", "ignore").decode())
