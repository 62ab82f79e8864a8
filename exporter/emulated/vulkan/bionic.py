"""Writes the trampolines through which a library for Android calls this machine's C library."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from exporter.errors import LoweringError

SOURCE = Path(__file__).with_name("bionic.c")
VERSIONS = "LIBC { };\nLIBC_N { };\n"
"""The linker's script of the symbol versions that Android's libraries ask for."""
_OWN = re.compile(r"EXPORT\((\w+)\)|\.symver \w+, (\w+)@|^\w[\w* ]* (__android_log_\w+)\(", re.MULTILINE)


def bionic_trampolines(library: Path) -> str:
    """Return the assembly of a function for each one that a library imports and `bionic.c` lacks.

    A function of the C library jumps to the one of the same name here. One of another library (Java's) has
    no use without Android, and ends the process.

    Args:
        library: The library for Android on x86-64.
    """
    own = {name for match in _OWN.findall(SOURCE.read_text()) for name in match if name}
    imported = [(name, version) for name, version in _bionic_imports(library) if name not in own]
    text, slots = [".text"], []
    for index, (name, version) in enumerate(imported):
        symbol = f"bionic_{index}" if version else name
        text.append(f".globl {symbol}\n.type {symbol},@function")
        if version:
            text.append(f".symver {symbol}, {name}@{version}\n{symbol}: jmp *slot_{index}(%rip)")
            slots.append((index, name))
        else:
            text.append(f"{symbol}: ud2")
    data = [".data", ".balign 8", *(f"slot_{index}: .quad 0" for index, _ in slots)]
    names = [".section .rodata", *(f'name_{index}: .asciz "{name}"' for index, name in slots)]
    table = ['.section .data.rel.ro,"aw"', ".balign 8", ".globl bionic_slots", ".hidden bionic_slots"]
    table += ["bionic_slots:", *(f".quad name_{index}, slot_{index}" for index, _ in slots), ".quad 0, 0"]
    return "\n".join([*text, *data, *names, *table, '.section .note.GNU-stack,"",@progbits', ""])


def _bionic_imports(library: Path) -> Iterator[tuple[str, str]]:
    """Yield what a library imports: the name, and the version for the C library's ("" for others').

    Raises:
        LoweringError: It is not the library that is expected.
    """
    from elftools.elf.elffile import ELFFile

    with library.open("rb") as stream:
        elf = ELFFile(stream)
        section: Callable[[str], Any] = elf.get_section_by_name
        symbols, versions, needed = map(section, (".dynsym", ".gnu.version", ".gnu.version_r"))
        if elf.get_machine_arch() != "x64" or not (symbols and versions and needed):
            raise LoweringError(f"{library.name} is no library for Android on x86-64")
        names = {entry["vna_other"]: entry.name for _, entries in needed.iter_versions() for entry in entries}
        for index, symbol in enumerate(symbols.iter_symbols()):
            version = names.get(versions.get_symbol(index)["ndx"], "")
            optional = symbol["st_info"]["bind"] == "STB_WEAK" and not version
            if symbol["st_shndx"] == "SHN_UNDEF" and symbol.name and not optional:
                yield symbol.name, version
