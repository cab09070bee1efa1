#!/usr/bin/env python3
"""The rules of the repository as a test: layering, guards, sizes, build lists, banned names.

Run it as `python3 tools/tidy.py` in any folder of the repository; it prints one line per finding and
exits with 1 if there is any. It only reads. Each rule is a generator over a `Repository`, so that
tools/tidy_test.py can show on small made-up trees that the rule catches what it is for.

A file that must break a limit is listed in tools/tidy_exceptions.txt as `path rule reason`; an entry
that is no longer needed is a finding too, so the list can only shrink.
"""

import dataclasses
import os
import re
import subprocess
import sys

SOURCE_EXTENSIONS = (".cc", ".cu")
HEADER_EXTENSIONS = (".h", ".cuh")
CPP_EXTENSIONS = SOURCE_EXTENSIONS + HEADER_EXTENSIONS
SCRIPT_EXTENSIONS = (".py", ".sh", ".cmake")
TEXT_EXTENSIONS = CPP_EXTENSIONS + SCRIPT_EXTENSIONS + (".md", ".proto", ".txt", ".yaml", ".yml")
TEXT_NAMES = ("dev", "run", "CMakeLists.txt", "CMakePresets.json")
# Recorded data: only its Markdown is ours to check.
DATA_FOLDERS = ("models/", "tests/data/")


@dataclasses.dataclass(frozen=True)
class Finding:
    path: str
    line: int
    rule: str
    message: str

    def __str__(self):
        return f"{self.path}:{self.line}: [{self.rule}] {self.message}"


class Repository:
    """Paths and texts of the files under one root; `paths` also names files that are not read."""

    def __init__(self, texts, paths=()):
        self.texts = dict(texts)
        self.paths = set(paths) | set(self.texts)
        self.folders = {""}
        for path in self.paths:
            while "/" in path:
                path = path.rsplit("/", 1)[0]
                self.folders.add(path)
        self._code = {}

    @staticmethod
    def load(root):
        paths = list_files(root)
        texts = {}
        for path in paths:
            name = path.rsplit("/", 1)[-1]
            if not (path.endswith(TEXT_EXTENSIONS) or name in TEXT_NAMES):
                continue
            if path.startswith(DATA_FOLDERS) and not path.endswith(".md"):
                continue
            with open(os.path.join(root, path), encoding="utf-8", errors="replace", newline="") as f:
                texts[path] = f.read()
        return Repository(texts, paths)

    def select(self, *extensions):
        return ((p, t) for p, t in sorted(self.texts.items()) if p.endswith(extensions))

    def code(self, path):
        """The C++ text with comments and literals blanked; line numbers stay."""
        if path not in self._code:
            self._code[path] = blank_comments_and_literals(self.texts[path])
        return self._code[path]


def list_files(root):
    try:
        output = subprocess.run(
            ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            check=True, capture_output=True).stdout.decode()
        paths = [p for p in output.split("\0") if p]
    except (OSError, subprocess.CalledProcessError):  # An unpacked archive has no .git.
        paths = []
        for folder, folders, names in os.walk(root):
            folders[:] = [f for f in folders if f not in ("build", ".git", "__pycache__", ".cache")]
            paths += [os.path.relpath(os.path.join(folder, n), root) for n in names]
    return [p for p in paths if os.path.isfile(os.path.join(root, p))]


LITERAL = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<tag>[^\s()\\]{0,16})\(.*?\)(?P=tag)"'
    r"|(?P<include>^[ \t]*#[ \t]*include[^\n]*)"
    r'|"(?:\\.|[^"\\\n])*"|(?<![0-9A-Fa-f])\'(?:\\.|[^\'\\\n])+\'', re.S | re.M)


def blank_comments_and_literals(text):
    def blank(match):
        if match.group("include"):
            return match.group(0)
        return re.sub(r"[^\n]", " ", match.group(0))
    return LITERAL.sub(blank, text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def stem_of(path):
    return path.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def folder_of(path):
    return path.rsplit("/", 1)[0] if "/" in path else ""


def is_test(path):
    return stem_of(path).endswith("_test") or path.startswith("tests/")


# ---- Includes -------------------------------------------------------------------------------------

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)
MAY_USE = re.compile(r"^set\(TESSERA_MAY_USE_(\w+)\s+([^)]*)\)", re.M)


def layer_table(repository):
    """The allow-list of each top folder: cmake/Targets.cmake is the one place that states it."""
    table = {}
    for name, value in MAY_USE.findall(repository.texts.get("cmake/Targets.cmake", "")):
        allowed = set()
        for word in value.replace('"', " ").split():
            reference = re.fullmatch(r"\$\{TESSERA_MAY_USE_(\w+)\}", word)
            allowed |= table.get(reference.group(1), set()) if reference else {word}
        table[name] = allowed
    return table


def includes(repository):
    for path, text in repository.select(*CPP_EXTENSIONS):
        for match in INCLUDE.finditer(text):
            yield path, line_of(text, match.start()), match.group(1), match.group(2)


def may_include(table, path, target):
    top, target_top = path.split("/")[0], target.split("/")[0]
    if target.startswith("tests/testing/"):
        return is_test(path) or top == "benchmarks"
    return (top == target_top or target_top in table[top] or
            any("/" in part and target.startswith(part + "/") for part in table[top]))


def check_layers(repository):
    table = layer_table(repository)
    for path, line, quote, target in includes(repository):
        top, target_top = path.split("/")[0], target.split("/")[0]
        if target.startswith((".", "/")) or (quote == '"' and "/" not in target):
            yield Finding(path, line, "include",
                          f'"{target}" is relative: write the path from the root of the repository')
        elif target_top in table:
            generated = re.sub(r"(\.grpc)?\.pb\.h$", ".proto", target)
            if target not in repository.paths and generated not in repository.paths:
                yield Finding(path, line, "include", f"{target} does not exist")
            elif top in table and not may_include(table, path, target):
                yield Finding(path, line, "layer", f"{top}/ may not include {target}")


# Header pattern, the files that may include it, and what everything else does instead.
RESTRICTED_INCLUDES = [
    (r".*\.pb\.h", r".*(_service|_client|_convert)(_test)?\.(h|cc)",
     "generated messages stay in *_service.*, *_client.* and *_convert.*: use the plain structs"),
    (r"mpi\.h", r"(worker/comm/mpi|cli)/.*", "MPI stays in worker/comm/mpi and cli: use Communicator"),
    (r"nccl\.h", r"kernels/cuda/runtime/.*", "NCCL stays in kernels/cuda/runtime: use DeviceCollectives"),
    (r"(cuda|cublas|driver_types).*", r"(kernels/cuda|kernels/cuda_sim)/.*",
     "CUDA stays in kernels/cuda: use KernelBackend"),
    (r"grpcpp/grpcpp\.h", r".*\.cc", "a header includes the narrow grpcpp header that it needs"),
    (r"grpc(pp)?/.*", r"(proto|engram_store|worker|coordinator|cli|tests|benchmarks)/.*",
     "this folder does not know the network"),
    (r"spdlog/.*", r"common/log\.cc", "use common/log.h"),
    (r"([a-z]+mmintrin|immintrin|x86intrin|cpuid|arm_neon)\.h", r"kernels/cpu/.*",
     "intrinsics stay in kernels/cpu"),
    (r"(CLI/.*|yaml-cpp/.*)", r"common/.*", "use common/config.h"),
    (r"nlohmann/.*", r"(model|coordinator|cli|engram_store|worker|tests|benchmarks)/.*",
     "this folder does not know JSON"),
    (r"absl/synchronization/.*", r"common/(instrumented_)?mutex(_test)?\.(h|cc)",
     "use common/mutex.h, which the thread sanitizer understands"),
    (r"(thread|common/clock\.h|common/mutex\.h)", r"(?!routing/).*",
     "routing is pure: no threads, and time comes in as an argument"),
    (r"regex", r"(?!)", "use PCRE2"),
    (r"(g(test|mock)/.*)", r"(.*_test\.cc|tests/.*)", "test libraries are for tests only"),
]


def check_restricted_includes(repository):
    rules = [(re.compile(h), re.compile(f), m) for h, f, m in RESTRICTED_INCLUDES]
    for path, line, _, target in includes(repository):
        for header, allowed, message in rules:
            if header.fullmatch(target) and not allowed.fullmatch(path):
                yield Finding(path, line, "include", f"{target}: {message}")


# Conditionals that choose code, and the files that may. A unit test of such a file may ask too.
CONDITIONALS = [
    (r"TESSERA_(CUDA|MPI|NCCL)", r".*_registry(_test)?\.(h|cc|cu)",
     "a backend is chosen in a *_registry.cc, not with #if in logic"),
    (r"(__SANITIZE_\w+|ABSL_HAVE_\w+_SANITIZER|__has_feature)", r"common/mutex(_test)?\.(h|cc)",
     "only common/mutex.h differs in a sanitizer build"),
]


def check_conditionals(repository):
    rules = [(re.compile(rf"^[ \t]*#[ \t]*(?:if|ifdef|ifndef|elif)\b.*\b{name}\b", re.M),
              re.compile(allowed), message) for name, allowed, message in CONDITIONALS]
    for path, _ in repository.select(*CPP_EXTENSIONS):
        for pattern, allowed, message in rules:
            if allowed.fullmatch(path):
                continue
            for match in pattern.finditer(repository.code(path)):
                yield Finding(path, line_of(repository.code(path), match.start()), "conditional",
                              message)


def check_guards(repository):
    for path, text in repository.select(*HEADER_EXTENSIONS):
        guard = "TESSERA_" + re.sub(r"[^A-Z0-9]", "_", path.upper()) + "_"
        expected = f"#ifndef {guard}\n#define {guard}\n"
        if expected not in text or not text.rstrip().endswith(f"#endif  // {guard}"):
            yield Finding(path, 1, "guard", f"the header guard must be {guard}")
        elif not text.startswith("//"):
            yield Finding(path, 1, "guard", "a header starts with a comment: what it is, what it is not")


# ---- Sizes ----------------------------------------------------------------------------------------

MAX_PAIRS_PER_FOLDER = 25
MAX_FUNCTION_LINES = 70
MAX_COLUMNS = 90


def size_limit(path):
    name = path.rsplit("/", 1)[-1]
    if name == "main.cc":
        return 80
    if path.endswith(CPP_EXTENSIONS) and is_test(path):
        return 800
    if path.endswith(HEADER_EXTENSIONS):
        return 300
    if path.endswith(SOURCE_EXTENSIONS + SCRIPT_EXTENSIONS) or name == "dev":
        return 600
    if name == "CMakeLists.txt":
        return 120
    if name == "ARCHITECTURE.md":
        return 300
    if name == "README.md" and path.count("/") == 1 and path != "models/README.md":
        return 40
    return None


def check_sizes(repository):
    stems = {}
    for path, text in sorted(repository.texts.items()):
        limit, lines = size_limit(path), text.count("\n")
        if limit is not None and lines > limit:
            yield Finding(path, limit, "size", f"{lines} lines, at most {limit}: split it")
        if path.endswith(CPP_EXTENSIONS) and not is_test(path):
            stems.setdefault(folder_of(path), set()).add(stem_of(path))
    for folder, names in sorted(stems.items()):
        if len(names) > MAX_PAIRS_PER_FOLDER:
            yield Finding(folder, 1, "size",
                          f"{len(names)} file pairs, at most {MAX_PAIRS_PER_FOLDER}: split the folder")


def check_function_lines(repository):
    """Namespaces are not indented, so a function outside a class opens and closes at column 0."""
    not_a_function = re.compile(r"(namespace|class|struct|union|enum|extern|#|\}|INSTANTIATE_)")
    for path, _ in repository.select(*CPP_EXTENSIONS):
        start, signature = None, ""
        for number, line in enumerate(repository.code(path).split("\n"), 1):
            if start is None:
                opens_here = line[:1] not in ("", " ", "\t")
                signature = line if opens_here else signature + line
                if re.search(r"[^=\s]\s*\{$", line) and "(" in signature \
                        and not not_a_function.match(signature):
                    start = number
            elif line.startswith("}"):
                if number - start - 1 > MAX_FUNCTION_LINES:
                    yield Finding(path, start, "function", f"{number - start - 1} lines in a function, "
                                  f"at most {MAX_FUNCTION_LINES}: split it")
                start, signature = None, ""


def check_columns(repository):
    for path, text in repository.select(*CPP_EXTENSIONS):
        for number, line in enumerate(text.split("\n"), 1):
            if len(line) > MAX_COLUMNS and not line.startswith("#include"):
                yield Finding(path, number, "columns", f"{len(line)} columns, at most {MAX_COLUMNS}")


# ---- Build lists ----------------------------------------------------------------------------------

def cmake_sources(path, text):
    text = re.sub(r"#[^\n]*", "", text)
    for word in re.findall(r"[^\s()\"]+\.(?:cc|cu)\b", text):
        word = word.replace("${CMAKE_CURRENT_SOURCE_DIR}/", "").replace("${PROJECT_SOURCE_DIR}/", "//")
        yield word[2:] if word.startswith("//") else \
            os.path.normpath(os.path.join(folder_of(path), word))


def check_build_lists(repository):
    listed = set()
    for path, text in repository.select("CMakeLists.txt"):
        listed |= set(cmake_sources(path, text))
        for match in re.finditer(r"file\s*\(\s*GLOB|aux_source_directory", text):
            yield Finding(path, line_of(text, match.start()), "build", "sources are listed, not globbed")
        for match in re.finditer(r"^\s*add_(executable|library|test)\s*\(", text, re.M):
            yield Finding(path, line_of(text, match.end()), "build",
                          "targets are made by the functions of cmake/Targets.cmake")
    for path, _ in repository.select(*SOURCE_EXTENSIONS):
        if path not in listed:
            yield Finding(path, 1, "build", "in no CMakeLists.txt: it is never compiled")


TESTED_FOLDERS = ("common/", "model/", "routing/", "engram_store/", "coordinator/requests/",
                  "coordinator/scheduler/")


def check_unit_tests(repository):
    registered = set()
    for path, text in repository.select("CMakeLists.txt"):
        for block in re.findall(r"tessera_cc_test\(([^)]*)\)", text):
            registered |= set(cmake_sources(path, block))
    for path, _ in repository.select(".cc"):
        if not path.startswith(TESTED_FOLDERS) or stem_of(path).endswith(("_test", "_bench")):
            continue
        test = path[:-len(".cc")] + "_test.cc"
        if test not in repository.paths:
            yield Finding(path, 1, "test", f"{test} is missing")
        elif test not in registered:
            yield Finding(test, 1, "test", "in no tessera_cc_test: it never runs")


# ---- Names ----------------------------------------------------------------------------------------

# Pattern over code without comments and literals, files that may use it, and the replacement.
BANNED_NAMES = [
    (r"\bstd::endl\b", "", "std::endl", "'\\n'"),
    (r"\.detach\(\)", "", "std::thread::detach", "a joined thread"),
    (r"\b(sleep_for|sleep_until|usleep|nanosleep|SleepFor)\b", r"common/clock\.cc", "sleeping",
     "Clock::Sleep"),
    (r"\b(system_clock|steady_clock|high_resolution_clock)::now\b|\babsl::Now\(",
     r"common/((clock|log)\.cc|instrumented_mutex\.h)|benchmarks/.*|tests/.*|.*_test\.cc", "reading the time", "a Clock*"),
    (r"\busing\s+namespace\b", "", "using namespace", "using-declarations"),
    (r"(?<![\w.>])assert\(", "", "assert", "TESSERA_CHECK"),
    (r"\bstd::regex\b", "", "std::regex", "PCRE2"),
    (r"(?<![\w.>])(std::)?(v?f?printf|v?sprintf|puts|fputs)\(", r"common/check\.cc", "printf",
     "fmt::print, or common/log.h"),
    (r"(?<![\w.>])(std::)?s?rand\(", "", "rand", "CounterRng"),
    (r"\bstd::random_device\b", r"cli/.*", "chance", "CounterRng; a secret is made in cli/"),
    (r"\bthrow\b", "", "throw", "absl::Status"),
    (r"\bNULL\b", "", "NULL", "nullptr"),
    (r"(?<![\w.>])(std::)?(abort|exit|quick_exit|_exit)\(", r"common/check\.cc|cli/.*|tests/.*",
     "exit", "absl::Status up to main"),
    (r"(?<!UnitTest::)\b(get_instance|GetInstance|getInstance)\b", "", "singleton", "an argument of Create"),
    (r"\babsl::(optional|variant|make_unique)\b", "", "absl's copy of a standard type",
     "the one of std"),
    (r"\babsl::(\w*Mutex\w*|Condition|CondVar|Notification|BlockingCounter|Barrier)\b|"
     r"\bstd::(shared_|recursive_|timed_)*mutex\b|\bstd::condition_variable",
     r"common/(instrumented_)?mutex(_test)?\.(h|cc)", "a lock", "tessera::Mutex of common/mutex.h"),
]
BANNED_SUFFIX = re.compile(
    r"\b(?:class|struct)\s+(?:ABSL_\w+(?:\([^)]*\))?\s+)?"
    r"(?!BlockManager\b)(\w*(?:Manager|Helper|Utils?|Impl|Base|Data))\s*(?:final\s*)?[:{]")
BANNED_STEM = re.compile(r"(?!block_manager)\w*_?(manager|helpers?|utils?|impl|misc)(_test)?")


def check_banned_names(repository):
    rules = [(re.compile(p), re.compile(a), n, r) for p, a, n, r in BANNED_NAMES]
    for path, _ in repository.select(*CPP_EXTENSIONS):
        code = repository.code(path)
        for pattern, allowed, name, replacement in rules:
            if allowed.fullmatch(path):
                continue
            for match in pattern.finditer(code):
                yield Finding(path, line_of(code, match.start()), "banned",
                              f"{name}: use {replacement}")
        for match in BANNED_SUFFIX.finditer(code):
            yield Finding(path, line_of(code, match.start()), "name",
                          f"{match.group(1)}: say what it does, not that it helps")
        if BANNED_STEM.fullmatch(stem_of(path)):
            yield Finding(path, 1, "name", "the file name says nothing: name the main type")


MARKER = re.compile(r"\b(TO[D]O\b(?!\(#\d+\): )|FIX[M]E\b|XX[X]\b)")


def check_markers(repository):
    for path, text in repository.select(*CPP_EXTENSIONS, *SCRIPT_EXTENSIONS, "CMakeLists.txt", "dev"):
        for match in MARKER.finditer(text):
            yield Finding(path, line_of(text, match.start()), "marker",
                          "finish it, or file it and write the issue's number")
        lines = text.split("\n")
        for number, line in enumerate(lines, 1):
            around = " ".join(lines[max(0, number - 3):number])
            if path.endswith(CPP_EXTENSIONS) and "DISABLED" + "_" in line \
                    and not re.search(r"#\d+", around):
                yield Finding(path, number, "marker", "a disabled test names its issue")


# ---- Text -----------------------------------------------------------------------------------------

def without_fences(text):
    kept, fenced = [], False
    for line in text.split("\n"):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            line = ""
        kept.append("" if fenced or line.startswith("    ") else line)
    return kept


LINK = re.compile(r"\[[^\]\[]*\]\(([^()\s]+)\)")


def check_markdown(repository):
    for path, text in repository.select(".md"):
        lines = without_fences(text)
        titles = [n for n, line in enumerate(lines, 1) if line.startswith("# ")]
        if len(titles) != 1:
            yield Finding(path, titles[1] if titles else 1, "markdown",
                          f"{len(titles)} titles, expected exactly one line `# Title`")
        for number, line in enumerate(lines, 1):
            for target in LINK.findall(re.sub(r"`[^`]*`", "", line)):
                target = target.split("#")[0]
                if not target or re.match(r"[a-z]+:", target):
                    continue
                resolved = os.path.normpath(os.path.join(folder_of(path), target)).replace("\\", "/")
                if resolved not in repository.paths and resolved.strip("./") not in repository.folders:
                    yield Finding(path, number, "markdown", f"link to {target}: no such file")


def check_architecture(repository):
    """ARCHITECTURE.md is how a newcomer finds a file: every path in it must exist."""
    path = "ARCHITECTURE.md"
    for number, line in enumerate(repository.texts.get(path, "").split("\n"), 1):
        for target in re.findall(r"`([a-z_]+/[\w/.-]*)`", line):
            if target.rstrip("/") not in repository.paths | repository.folders:
                yield Finding(path, number, "markdown", f"{target}: no such file")


def check_whitespace(repository):
    for path, text in sorted(repository.texts.items()):
        if text and not text.endswith("\n"):
            yield Finding(path, text.count("\n") + 1, "whitespace", "no newline at the end of the file")
        if "\t" not in text and "\r" not in text and not re.search(r" $", text, re.M):
            continue
        for number, line in enumerate(text.split("\n"), 1):
            if "\t" in line:
                yield Finding(path, number, "whitespace", "tab")
            if line != line.rstrip():
                yield Finding(path, number, "whitespace", "trailing whitespace")


def check_scripts(repository):
    """Set-up works behind any mirror: packages are named, hosts are not."""
    url = re.compile(r"(?:https?|ftp)://(?!localhost|127\.0\.0\.1|\$)")
    for path, text in sorted(repository.texts.items()):
        name = path.rsplit("/", 1)[-1]
        if not (path.endswith((".sh", ".cmake")) or name in TEXT_NAMES or "requirements" in name):
            continue
        for match in url.finditer(text):
            yield Finding(path, line_of(text, match.start()), "script", "a URL in a build script")


def check_folders(repository):
    for top in sorted(layer_table(repository)):
        if top in repository.folders and f"{top}/README.md" not in repository.paths:
            yield Finding(top, 1, "folder", f"{top}/README.md is missing: purpose, classes to read first")


RULES = [check_layers, check_restricted_includes, check_conditionals, check_guards,
         check_sizes, check_function_lines, check_columns, check_build_lists, check_unit_tests,
         check_banned_names, check_markers, check_markdown, check_architecture, check_whitespace, check_scripts,
         check_folders]

EXCEPTIONS = "tools/tidy_exceptions.txt"


def check(repository):
    """All findings that no exception covers, and the exceptions that cover none."""
    exceptions, used = {}, set()
    for number, line in enumerate(repository.texts.get(EXCEPTIONS, "").split("\n"), 1):
        words = line.split(maxsplit=2)
        if words and not line.startswith("#"):
            if len(words) < 3:
                yield Finding(EXCEPTIONS, number, "exception", "expected: path rule reason")
            else:
                exceptions[(words[0], words[1])] = number
    for rule in RULES:
        for finding in rule(repository):
            if (finding.path, finding.rule) in exceptions:
                used.add((finding.path, finding.rule))
            else:
                yield finding
    for key, number in exceptions.items():
        if key not in used:
            yield Finding(EXCEPTIONS, number, "exception", f"{key[0]} no longer breaks {key[1]}: remove")


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    findings = list(check(Repository.load(root)))
    for finding in findings:
        print(finding)
    if findings:
        print(f"tidy: {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
