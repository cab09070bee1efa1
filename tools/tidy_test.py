#!/usr/bin/env python3
"""Shows that each rule of tidy.py catches what it is for, and leaves correct files alone."""

import unittest

import tidy

TARGETS = """
set(TESSERA_MAY_USE_common "")
set(TESSERA_MAY_USE_model common)
set(TESSERA_MAY_USE_proto common)
set(TESSERA_MAY_USE_routing common model)
set(TESSERA_MAY_USE_kernels common model/formats)
set(TESSERA_MAY_USE_worker common model proto kernels routing)
set(TESSERA_MAY_USE_coordinator common model proto routing)
set(TESSERA_MAY_USE_cli common model proto kernels routing worker coordinator)
set(TESSERA_MAY_USE_tests ${TESSERA_MAY_USE_cli} cli)
"""
EXISTING = ["common/status.h", "model/formats/dtype.h", "model/config/model_config.h",
            "kernels/kernel_backend.h", "worker/runner/model_runner.h", "routing/dp_rank_policy.h",
            "coordinator/service/step_loop.h", "tests/testing/stub_model.h", "proto/worker.proto",
            "cli/subcommand.h", "common/clock.h", "common/mutex.h"]


def repository(files):
    return tidy.Repository({"cmake/Targets.cmake": TARGETS, **files}, EXISTING)


def messages(rule, files):
    return [str(finding) for finding in rule(repository(files))]


def header(path, body="", guard=None):
    guard = guard or "TESSERA_" + path.upper().replace("/", "_").replace(".", "_") + "_"
    return f"// What it is.\n#ifndef {guard}\n#define {guard}\n{body}\n#endif  // {guard}\n"


class TidyTest(unittest.TestCase):
    def assert_caught(self, rule, files, *parts):
        found = messages(rule, files)
        self.assertEqual(len(found), 1, found)
        for part in parts:
            self.assertIn(part, found[0])

    def assert_clean(self, rule, files):
        self.assertEqual(messages(rule, files), [])

    # Includes.

    def test_layer_table_is_read_from_cmake_and_expanded(self):
        table = tidy.layer_table(repository({}))
        self.assertEqual(table["common"], set())
        self.assertIn("coordinator", table["tests"])

    def test_layers(self):
        for path, target in [("coordinator/api/a.cc", "worker/runner/model_runner.h"),
                             ("coordinator/api/a.cc", "kernels/kernel_backend.h"),
                             ("common/a.cc", "model/formats/dtype.h"),
                             ("kernels/cpu/a.cc", "model/config/model_config.h"),
                             ("worker/runner/a.cc", "coordinator/service/step_loop.h"),
                             ("worker/runner/a.cc", "cli/subcommand.h"),
                             ("worker/runner/a.cc", "tests/testing/stub_model.h")]:
            self.assert_caught(tidy.check_layers, {path: f'#include "{target}"\n'},
                               f"{path}:1: [layer]", target)

    def test_allowed_layers(self):
        for path, target in [("kernels/cpu/a.cc", "model/formats/dtype.h"),
                             ("worker/runner/a.cc", "kernels/kernel_backend.h"),
                             ("worker/runner/a_test.cc", "tests/testing/stub_model.h"),
                             ("tests/integration/a.cc", "coordinator/service/step_loop.h"),
                             ("cli/serve.cc", "coordinator/service/step_loop.h")]:
            self.assert_clean(tidy.check_layers, {path: f'#include "{target}"\n'})

    def test_relative_and_missing_includes(self):
        self.assert_caught(tidy.check_layers, {"common/a.cc": '#include "status.h"\n'}, "relative")
        self.assert_caught(tidy.check_layers, {"common/a.cc": '#include "../common/status.h"\n'},
                           "relative")
        self.assert_caught(tidy.check_layers, {"common/a.cc": '#include "common/gone.h"\n'},
                           "does not exist")
        self.assert_clean(tidy.check_layers,
                          {"worker/service/a_service.cc": '#include "proto/worker.grpc.pb.h"\n'})

    def test_restricted_includes(self):
        for path, target in [("worker/runner/a.cc", "proto/worker.pb.h"),
                             ("worker/runner/a.cc", "mpi.h"),
                             ("worker/comm/mpi/a.cc", "nccl.h"),
                             ("kernels/cpu/a.cc", "cuda_runtime.h"),
                             ("coordinator/api/a.h", "grpcpp/grpcpp.h"),
                             ("model/chat/a.cc", "grpcpp/server.h"),
                             ("common/status.cc", "spdlog/spdlog.h"),
                             ("worker/runner/a.cc", "immintrin.h"),
                             ("cli/serve.cc", "CLI/CLI.hpp"),
                             ("cli/serve.cc", "yaml-cpp/yaml.h"),
                             ("kernels/cpu/a.cc", "nlohmann/json.hpp"),
                             ("routing/a.cc", "common/clock.h"),
                             ("routing/a.cc", "thread"),
                             ("routing/a.cc", "common/mutex.h"),
                             ("worker/runner/a.cc", "absl/synchronization/mutex.h"),
                             ("model/chat/a.cc", "regex"),
                             ("model/chat/a.cc", "gtest/gtest.h")]:
            self.assert_caught(tidy.check_restricted_includes, {path: f"#include <{target}>\n"}, target)

    def test_allowed_restricted_includes(self):
        for path, target in [("proto/step_convert.cc", "proto/worker.pb.h"),
                             ("worker/service/worker_client.h", "proto/worker.grpc.pb.h"),
                             ("worker/comm/mpi/a.cc", "mpi.h"),
                             ("coordinator/api/a.cc", "grpcpp/grpcpp.h"),
                             ("common/log.cc", "spdlog/spdlog.h"),
                             ("common/config.cc", "CLI/CLI.hpp"),
                             ("kernels/cpu/a.cc", "immintrin.h"),
                             ("worker/runner/a.cc", "thread"),
                             ("model/chat/a_test.cc", "gtest/gtest.h")]:
            self.assert_clean(tidy.check_restricted_includes, {path: f"#include <{target}>\n"})

    def test_conditionals(self):
        for name, message in [("TESSERA_MPI", "registry"), ("__SANITIZE_THREAD__", "sanitizer"),
                              ("ABSL_HAVE_THREAD_SANITIZER", "sanitizer")]:
            text = f"#ifdef {name}\n#endif\n"
            self.assert_caught(tidy.check_conditionals, {"worker/comm/a.cc": text}, message)
        self.assert_clean(tidy.check_conditionals,
                          {"worker/comm/comm_registry.cc": "#ifdef TESSERA_MPI\n#endif\n",
                           "common/mutex.h": "#ifdef ABSL_HAVE_THREAD_SANITIZER\n#endif\n"})

    def test_guards(self):
        path = "common/thing.h"
        self.assert_clean(tidy.check_guards, {path: header(path)})
        self.assert_caught(tidy.check_guards, {path: header(path, guard="THING_H")},
                           "TESSERA_COMMON_THING_H_")
        self.assert_caught(tidy.check_guards, {path: "// What.\n#pragma once\n"}, "guard")
        self.assert_caught(tidy.check_guards, {path: header(path).split("\n", 1)[1]}, "comment")

    # Sizes.

    def test_sizes(self):
        for path, limit in [("common/a.h", 300), ("common/a.cc", 600), ("common/a_test.cc", 800),
                            ("cli/main.cc", 80), ("common/CMakeLists.txt", 120), ("dev", 600),
                            ("ARCHITECTURE.md", 300), ("common/README.md", 40), ("tools/a.py", 600)]:
            self.assert_caught(tidy.check_sizes, {path: "x\n" * (limit + 1)}, f"at most {limit}")
            self.assert_clean(tidy.check_sizes, {path: "x\n" * limit})

    def test_folder_size(self):
        files = {f"common/a{i}.{e}": "x\n" for i in range(26) for e in ("h", "cc")}
        self.assert_caught(tidy.check_sizes, files, "26 file pairs")
        del files["common/a0.h"], files["common/a0.cc"]
        self.assert_clean(tidy.check_sizes, files)

    def test_function_lines(self):
        def function(lines):
            return "namespace a {\nint F(int a,\n      int b) {\n" + "  a += b;\n" * lines + "}\n}\n"
        self.assert_caught(tidy.check_function_lines, {"common/a.cc": function(71)}, "a.cc:3", "71 lines")
        self.assert_clean(tidy.check_function_lines, {"common/a.cc": function(70)})
        body = "class A {\n" + "  int x_;\n" * 100 + "};\n"
        self.assert_clean(tidy.check_function_lines, {"common/a.h": body})
        for opening in ["INSTANTIATE_TEST_SUITE_P(A, B, Values(C{", "const A kTable = F<void(int)> = {"]:
            self.assert_clean(tidy.check_function_lines,
                              {"common/a.cc": opening + "\n" + "  {1, 2},\n" * 100 + "};\n"})

    def test_columns(self):
        self.assert_caught(tidy.check_columns, {"common/a.cc": "a" * 91 + "\n"}, "91 columns")
        self.assert_clean(tidy.check_columns, {"common/a.cc": "ü" * 90 + "\n"})

    # Build lists.

    def test_orphans_and_globs(self):
        files = {"common/a.cc": "", "common/CMakeLists.txt": "tessera_cc_library(NAME a SRCS a.cc)\n"}
        self.assert_clean(tidy.check_build_lists, files)
        self.assert_caught(tidy.check_build_lists, {**files, "common/b.cc": ""}, "common/b.cc",
                           "never compiled")
        self.assert_caught(tidy.check_build_lists,
                           {"common/CMakeLists.txt": "file(GLOB sources *.cc)\n"}, "globbed")
        self.assert_caught(tidy.check_build_lists,
                           {"common/CMakeLists.txt": "add_executable(a a.cc)\n"}, "Targets.cmake")
        commented = {"common/a.cc": "", "common/CMakeLists.txt": "# a.cc\n"}
        self.assert_caught(tidy.check_build_lists, commented, "never compiled")

    def test_unit_tests(self):
        files = {"routing/a.cc": "", "routing/a_test.cc": "",
                 "routing/CMakeLists.txt": "tessera_cc_test(NAME a_test SRCS a_test.cc DEPS b)\n"}
        self.assert_clean(tidy.check_unit_tests, files)
        self.assert_caught(tidy.check_unit_tests, {"routing/a.cc": ""}, "a_test.cc is missing")
        unregistered = {**files, "routing/CMakeLists.txt": "tessera_cc_library(NAME a SRCS a_test.cc)\n"}
        self.assert_caught(tidy.check_unit_tests, unregistered, "never runs")
        self.assert_clean(tidy.check_unit_tests, {"worker/layers/a.cc": ""})

    # Names.

    def test_banned_names(self):
        for code in ["std::cout << std::endl;", "t.detach();", "std::this_thread::sleep_for(d);",
                     "usleep(3);", "absl::SleepFor(d);", "std::chrono::steady_clock::now();",
                     "absl::Now();", "using namespace std;", "assert(x);", "std::regex r;",
                     'printf("x");', 'std::fprintf(stderr, "x");', "rand();", "std::random_device d;",
                     "throw 3;", "p = NULL;", "std::exit(1);", "A::GetInstance();",
                     "absl::optional<int> s;", "class FooManager {", "struct FooData : Bar {",
                     "class StringUtils final {", "absl::Mutex m;", "absl::MutexLock l(&m);",
                     "std::mutex m;", "std::shared_mutex m;", "std::condition_variable_any c;"]:
            self.assert_caught(tidy.check_banned_names, {"worker/a.cc": code + "\n"}, "worker/a.cc:1")

    def test_names_that_only_look_banned(self):
        for code in ["static_assert(x);", "// assert(x); throws", 's = "std::endl rand()";',
                     "class BlockManager {", "class Database {", "x.rand();", "operand(3);",
                     "TESSERA_CHECK(x);", 'R"(printf("x"))";', "/* using namespace\n std */",
                     "fmt::print(x);", "class Metadata;"]:
            self.assert_clean(tidy.check_banned_names, {"worker/a.cc": code + "\n"})
        self.assert_clean(tidy.check_banned_names, {"common/clock.cc": "absl::SleepFor(d);\n"})

    def test_banned_names_after_a_digit_separator(self):
        self.assert_caught(tidy.check_banned_names, {"worker/a.cc": "x = 1'000;\nrand();\ny = 'a';\n"},
                           "worker/a.cc:2")

    def test_banned_file_names(self):
        self.assert_caught(tidy.check_banned_names, {"worker/string_utils.cc": ""}, "file name")
        self.assert_clean(tidy.check_banned_names, {"coordinator/block_manager.cc": ""})

    def test_markers(self):
        for word in ["TO" + "DO: x", "FIX" + "ME", "XX" + "X"]:
            self.assert_caught(tidy.check_markers, {"common/a.cc": f"// {word}\n"}, "marker")
            self.assert_caught(tidy.check_markers, {"tools/a.sh": f"# {word}\n"}, "marker")
        self.assert_clean(tidy.check_markers, {"common/a.cc": "// TO" + "DO(#12): x.\n"})
        name = "TEST(A, DISABLED" + "_B) {}\n"
        self.assert_caught(tidy.check_markers, {"common/a_test.cc": name}, "issue")
        self.assert_clean(tidy.check_markers, {"common/a_test.cc": "// Issue #3.\n" + name})

    # Text.

    def test_markdown_titles(self):
        self.assert_clean(tidy.check_markdown, {"a.md": "# A\n\n```\n# shell\n```\n## B\n"})
        self.assert_caught(tidy.check_markdown, {"a.md": "# A\n# B\n"}, "a.md:2", "2 titles")
        self.assert_caught(tidy.check_markdown, {"a.md": "text\n"}, "0 titles")

    def test_markdown_links(self):
        good = "# A\n[x](common/status.h) [y](common) [z](#a) [w](mailto:a@b) `[v](gone)`\n"
        self.assert_clean(tidy.check_markdown, {"a.md": good})
        self.assert_caught(tidy.check_markdown, {"docs/a.md": "# A\n[x](gone.md#part)\n"}, "gone.md")
        self.assert_clean(tidy.check_markdown, {"docs/a.md": "# A\n[x](../common/status.h)\n"})

    def test_architecture_names_files_that_exist(self):
        good = "# A\n`common/status.h`, `model/formats/`, `a.cc`, `cli/<name>.cc`\n"
        self.assert_clean(tidy.check_architecture, {"ARCHITECTURE.md": good})
        self.assert_caught(tidy.check_architecture, {"ARCHITECTURE.md": "# A\n`common/gone.cc`\n"},
                           "common/gone.cc")

    def test_whitespace(self):
        self.assert_caught(tidy.check_whitespace, {"a.md": "x \n"}, "trailing")
        self.assert_caught(tidy.check_whitespace, {"a.cc": "\tx\n"}, "tab")
        self.assert_caught(tidy.check_whitespace, {"a.cc": "x\r\n"}, "trailing")
        self.assert_caught(tidy.check_whitespace, {"a.cc": "x"}, "newline")
        self.assert_clean(tidy.check_whitespace, {"a.cc": "x\n"})

    def test_scripts(self):
        url = "https:" + "//example.com/a.tar"
        for path in ["dev", "tools/a.sh", "tools/requirements.txt", "cmake/A.cmake"]:
            self.assert_caught(tidy.check_scripts, {path: f"fetch {url}\n"}, "URL")
        self.assert_clean(tidy.check_scripts, {"dev": "curl http://127.0.0.1:8000/\n"})

    def test_folders_have_a_readme(self):
        found = messages(tidy.check_folders, {"common/README.md": "# common\n"})
        self.assertFalse([m for m in found if m.startswith("common:")])
        self.assertTrue([m for m in found if m.startswith("model:")])

    # Exceptions.

    def test_exceptions_cover_and_expire(self):
        files = {f"{name}/README.md": f"# {name}\n"
                 for name in tidy.layer_table(repository({}))}
        files["tests/a.cc"] = "a" * 91 + "\n"
        files["tests/CMakeLists.txt"] = "tessera_cc_test(SRCS a.cc)\n"
        self.assertEqual(len(list(tidy.check(repository(files)))), 1)
        files[tidy.EXCEPTIONS] = "# Why.\ntests/a.cc columns A table that is wide.\n"
        self.assertEqual(list(tidy.check(repository(files))), [])
        files["tests/a.cc"] = ""
        self.assertIn("no longer", str(list(tidy.check(repository(files)))[0]))
        files[tidy.EXCEPTIONS] = "tests/a.cc columns\n"
        self.assertIn("reason", str(list(tidy.check(repository(files)))[0]))

    def test_every_rule_has_run_here(self):
        with open(__file__, encoding="utf-8") as file:
            text = file.read()
        for rule in tidy.RULES:
            self.assertIn(f"tidy.{rule.__name__},", text.replace(")", ","), rule.__name__)


if __name__ == "__main__":
    unittest.main()
