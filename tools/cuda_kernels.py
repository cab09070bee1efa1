#!/usr/bin/env python3
"""Registers, memory, occupancy and predicted roofline share of the CUDA kernels, as docs/cuda_kernels.md.

Usage: cuda_kernels.py [--check] [--cuobjdump PROGRAM] FOLDER

FOLDER has the objects that nvcc made and, beside each, what ptxas said (*.ptxas.txt): build/cuda/kernels/cuda/kernels_gpu_objects, or
build/cpu/… after `./dev build kernels_gpu`. Without --check the document is written. With it nothing is written; it fails where a
kernel uses local memory or spills, or where the document has another set of kernels. Where cuobjdump is found, its resource usage
must agree with ptxas, and local memory, tensor-core and bulk-copy instructions are counted in its SASS. It is looked for in
build/cuda_tools, which `./dev test --all` makes, then on PATH.

With --check, objects older than a source of kernels/cuda count as not there: what they say is not of this tree.

Exit codes: 0, 1 for findings, 77 for nothing to look at. Standard library, c++filt and, if there is one, cuobjdump.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys

import cuda_roofline

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs/cuda_kernels.md"
SKIPPED = 77

# Opcodes of Hopper's SASS by what they are: a share of the tensor cores, a bulk copy, local memory.
OPCODES = {"tensor core": r"(?:HMMA|IMMA|DMMA|HGMMA|IGMMA|QGMMA|BGMMA)\b", "bulk copy": r"(?:UBLKCP|UTMALDG|UTMASTG|UBLKRED)\b",
           "local memory": r"(?:LDL|STL)\b"}


# Kernels that would be something else without them.
TENSOR_CORE_KERNELS = ("Fp4GemmKernel", "Fp8GemmKernel", "MlaDecodeKernel")


@dataclasses.dataclass
class Resources:
    """Of one kernel; bytes but for the registers, which are of a thread."""
    registers: int
    shared: int = 0
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0
    local: int = 0

    def uses_local_memory(self):
        return any((self.stack, self.spill_stores, self.spill_loads, self.local))


def short_names(mangled):
    """{mangled: name} of kernels: the struct that RunKernel is made for, without namespaces."""
    names = sorted(mangled)
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    short = {}
    for name, demangled in zip(names, text.splitlines()):
        match = re.search(r"RunKernel<(.*)>\(", demangled)
        inner = (match.group(1) if match else demangled).strip()
        inner = re.sub(r"\b(tessera|kernels|cuda|mla)::|\(anonymous namespace\)::", "", inner)
        short[name] = re.sub(r"(\d)u\b", r"\1", inner).replace(", ", ",")
    return short


def parse_ptxas(text):
    """{mangled: Resources} of `nvcc --resource-usage`."""
    kernels = {}
    entry = re.compile(
        r"Compiling entry function '(\S+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers([^\n]*)", re.S)
    for name, stack, stores, loads, registers, rest in entry.findall(text):
        shared = re.search(r"(\d+) bytes smem", rest)
        kernels[name] = Resources(int(registers), int(shared.group(1)) if shared else 0, int(stack), int(stores), int(loads))
    return kernels


def parse_cuobjdump(text):
    """{mangled: Resources} of `cuobjdump --dump-resource-usage`."""
    kernels = {}
    entry = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
    for name, registers, stack, shared, local in entry.findall(text):
        kernels[name] = Resources(int(registers), int(shared), int(stack), local=int(local))
    return kernels


def count_opcodes(text):
    """{mangled: {kind: count}} of `cuobjdump --dump-sass`."""
    kernels = {}
    for part in re.split(r"^\s*Function : ", text, flags=re.M)[1:]:
        name, _, body = part.partition("\n")
        kernels[name.strip()] = {kind: len(re.findall(rf"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?{pattern}", body, re.M))
                                 for kind, pattern in OPCODES.items()}
    return kernels


def missing_instructions(opcodes):
    """Findings of kernels for tensor cores that have none of their instructions."""
    names = short_names(opcodes)
    return [f"{names[mangled]} has no {kind} instruction" for mangled, counts in opcodes.items() for kind in ("tensor core", "bulk copy")
            if names[mangled].startswith(TENSOR_CORE_KERNELS) and not counts[kind]]


def read_reports(folder):
    """[(source, {mangled: Resources})] of the folder's *.ptxas.txt that name a kernel."""
    reports = []
    for path in sorted(folder.glob("*.ptxas.txt")):
        kernels = parse_ptxas(path.read_text(encoding="utf-8"))
        if kernels:
            reports.append((path.name.removesuffix(".ptxas.txt"), kernels))
    return reports


def newer_source(folder, sources):
    """A file of `sources` that changed after the oldest report of the folder, or None."""
    oldest = min(path.stat().st_mtime for path in folder.glob("*.ptxas.txt"))
    changed = (path for path in sorted(sources.rglob("*.cu*")) if path.stat().st_mtime > oldest)
    return next(changed, None)


def find_cuobjdump():
    """The program of tools/cuda_requirements.txt, or one of PATH or of the CUDA toolkit, or None."""
    installed = sorted(ROOT.glob("build/cuda_tools/lib/python3*/site-packages/nvidia/*/bin/cuobjdump"))
    return str(installed[-1]) if installed else shutil.which("cuobjdump") or shutil.which("/usr/local/cuda/bin/cuobjdump")


def read_objects(folder, reports, program):
    """({mangled: {kind: count}}, findings) of the objects, by cuobjdump."""
    opcodes, findings = {}, []
    # It looks for nvdisasm on PATH.
    environment = dict(os.environ, PATH=os.pathsep.join([os.path.dirname(program), os.environ.get("PATH", "")]))
    for source, kernels in reports:
        def dump(what, path=folder / f"{source}.o"):
            return subprocess.run([program, what, str(path)], capture_output=True, text=True, check=True, env=environment).stdout
        for name, seen in parse_cuobjdump(dump("--dump-resource-usage")).items():
            if name not in kernels or seen.registers != kernels[name].registers:
                findings.append(f"{source}: cuobjdump has {seen} of {name}, ptxas {kernels.get(name)}")
            if seen.uses_local_memory():
                findings.append(f"{source}: {name} uses local memory: {seen}")
        opcodes.update(count_opcodes(dump("--dump-sass")))
    for name, counts in opcodes.items():
        if counts["local memory"]:
            findings.append(f"{name}: {counts['local memory']} instructions on local memory")
    return opcodes, findings


def spill_findings(reports):
    return [f"{source}: {name} uses local memory: {resources}" for source, kernels in reports
            for name, resources in kernels.items() if resources.uses_local_memory()]


def resource_rows(reports, opcodes):
    """Lines of the first table, by source and kernel."""
    lines = ["| kernel | source | registers | shared, static + dynamic | local, spills | threads | blocks per SM | occupancy | limited by |",
             "|---|---|---|---|---|---|---|---|---|"]
    if opcodes:
        lines = [lines[0] + " tensor-core, bulk-copy instructions |", lines[1] + "---|"]
    for source, kernels in reports:
        names = short_names(kernels)
        for mangled in sorted(kernels, key=names.get):
            used, name = kernels[mangled], names[mangled]
            launch = cuda_roofline.launch_of(ROOT, source, name)
            fit = cuda_roofline.occupancy(launch.threads, used.registers, used.shared + launch.shared)
            line = (f"| {name} | {source} | {used.registers} | {used.shared} + {launch.shared} | {used.stack + used.local}, "
                    f"{used.spill_stores + used.spill_loads} | {launch.threads} | {fit.blocks} | {100 * fit.share:.0f} % | {fit.limit} |")
            if opcodes:
                counts = opcodes.get(mangled, {})
                line += f" {counts.get('tensor core', '?')}, {counts.get('bulk copy', '?')} |"
            lines.append(line)
    return lines


def document(reports, opcodes):
    by_name = {}
    for _, kernels in reports:
        names = short_names(kernels)
        by_name.update({names[mangled]: resources for mangled, resources in kernels.items()})
    text = cuda_roofline.INTRODUCTION.splitlines() + [""] + resource_rows(reports, opcodes)
    sass = ("SASS was counted by cuobjdump." if opcodes else
            "This table was made on a machine without cuobjdump: SASS was not looked at, and local memory is what ptxas reports.")
    text += ["", sass, ""] + cuda_roofline.roofline_lines(ROOT, by_name) + [""] + cuda_roofline.PUBLISHED.splitlines()
    return "\n".join(text) + "\n"


def kernels_of_document(text):
    return set(re.findall(r"^\| (\w\S*) \| \w+\.cu ", text, re.M))


def check(reports, findings):
    """Prints the findings; the exit code."""
    found = {name for _, kernels in reports for name in short_names(kernels).values()}
    listed = kernels_of_document(DOCUMENT.read_text(encoding="utf-8"))
    findings = findings + [f"docs/cuda_kernels.md lacks {name}: make it anew" for name in sorted(found - listed)]
    findings += [f"docs/cuda_kernels.md has {name}, which no object has: make it anew" for name in sorted(listed - found)]
    for finding in findings:
        print(finding)
    print(f"{len(found)} kernels, {len(findings)} findings")
    return 1 if findings else 0


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--cuobjdump", default=find_cuobjdump())
    parser.add_argument("folder", type=pathlib.Path)
    options = parser.parse_args(arguments)
    reports = read_reports(options.folder)
    if not reports:
        print(f"skipped: no reports of ptxas in {options.folder}: no nvcc, or kernels_gpu was not built")
        return SKIPPED
    stale = newer_source(options.folder, ROOT / "kernels/cuda") if options.check else None
    if stale is not None:
        print(f"skipped: {stale.relative_to(ROOT)} is newer than the objects in {options.folder}: ./dev build kernels_gpu")
        return SKIPPED
    findings, opcodes = spill_findings(reports), {}
    if options.cuobjdump:
        opcodes, more = read_objects(options.folder, reports, options.cuobjdump)
        findings += more
    else:
        print("no cuobjdump: SASS is not looked at")
    findings += missing_instructions(opcodes)
    if options.check:
        return check(reports, findings)
    DOCUMENT.write_text(document(reports, opcodes), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
