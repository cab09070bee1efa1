#!/usr/bin/env python3
"""What the tools say of kernels: reports of ptxas and cuobjdump are read right, spills are found, occupancy is Hopper's."""

import contextlib
import io
import os
import pathlib
import tempfile
import unittest

import cuda_kernels
import cuda_roofline
import mla_roofline
import tensor_core_roofline

NAME = "_ZN7tessera7kernels4cuda9RunKernelINS1_45_GLOBAL__N__61c69eb7_12_attention_cu_85c2c4a318MlaAttentionKernelEEEvT_"
PTXAS = f"""\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{NAME}' for 'sm_90a'
ptxas info    : Function properties for {NAME}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 90 registers, used 1 barriers, 1024 bytes smem
ptxas info    : Compile time = 4408.818 ms
ptxas info    : Compiling entry function '_Z3foov' for 'sm_90a'
ptxas info    : Function properties for _Z3foov
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
"""
USAGE = f"""\
Resource usage:
 Common:
  GLOBAL:0
 Function {NAME}:
  REG:90 STACK:0 SHARED:1024 LOCAL:0 CONSTANT[0]:720 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
SASS = """\
\t\tFunction : _Z3foov
\t.headerflags\t@"EF_CUDA_SM90 EF_CUDA_VIRTUAL_SM(EF_CUDA_SM90)"
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 LDL R4, [R1+0x10] ;
        /*0020*/                   STL.64 [R1], R2 ;
        /*0030*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4], R24 ;
        /*0040*/                   UBLKCP [UR8], [UR4], UR9 ;
        /*0050*/                   LDG.E R2, [R2] ;
"""


class Reports(unittest.TestCase):
    def test_ptxas_and_cuobjdump_agree_on_the_same_kernel(self):
        seen = cuda_kernels.parse_ptxas(PTXAS)
        self.assertEqual(set(seen), {NAME, "_Z3foov"})
        self.assertEqual(seen[NAME], cuda_kernels.parse_cuobjdump(USAGE)[NAME])
        self.assertFalse(seen[NAME].uses_local_memory())

    def test_the_name_is_that_of_the_struct(self):
        self.assertEqual(cuda_kernels.short_names([NAME]), {NAME: "MlaAttentionKernel"})

    def test_spills_are_found(self):
        findings = cuda_kernels.spill_findings([("a.cu", cuda_kernels.parse_ptxas(PTXAS))])
        self.assertEqual(len(findings), 1)
        self.assertIn("_Z3foov", findings[0])

    def test_sass_is_counted_by_kind(self):
        self.assertEqual(cuda_kernels.count_opcodes(SASS),
                         {"_Z3foov": {"tensor core": 1, "bulk copy": 1, "local memory": 2}})

    def test_a_kernel_for_tensor_cores_without_their_instructions_is_found(self):
        mangled = "_ZN7tessera7kernels4cuda16BoundedRunKernelINS1_12_GLOBAL__N_113Fp8GemmKernelILj2ELj128EEEEEvT_"
        self.assertEqual(cuda_kernels.short_names([mangled]), {mangled: "Fp8GemmKernel<2,128>"})
        self.assertEqual(cuda_kernels.missing_instructions({mangled: {"tensor core": 4, "bulk copy": 3}, NAME: {}}), [])
        self.assertEqual(cuda_kernels.missing_instructions({mangled: {"tensor core": 4, "bulk copy": 0}}),
                         ["Fp8GemmKernel<2,128> has no bulk copy instruction"])

    def test_without_reports_it_is_skipped_with_a_reason(self):
        output = io.StringIO()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(output):
            self.assertEqual(cuda_kernels.main(["--check", folder]), cuda_kernels.SKIPPED)
        self.assertIn("skipped: no reports", output.getvalue())

    def test_objects_older_than_a_source_are_told_from_new_ones(self):
        with tempfile.TemporaryDirectory() as folder:
            report, source = pathlib.Path(folder, "a.cu.ptxas.txt"), pathlib.Path(folder, "kernels/a.cuh")
            source.parent.mkdir()
            for path in (report, source):
                path.write_text("", encoding="utf-8")
            os.utime(report, (1000, 1000))
            os.utime(source, (999, 999))
            self.assertIsNone(cuda_kernels.newer_source(report.parent, source.parent))
            os.utime(source, (1001, 1001))
            self.assertEqual(cuda_kernels.newer_source(report.parent, source.parent), source)

    def test_a_kernel_that_spills_or_that_the_document_lacks_fails_the_check(self):
        output = io.StringIO()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(output):
            report = pathlib.Path(folder, "a.cu.ptxas.txt")
            report.write_text(PTXAS, encoding="utf-8")
            os.utime(report, (2**33, 2**33))  # newer than any source
            self.assertEqual(cuda_kernels.main(["--check", "--cuobjdump", "", folder]), 1)
        self.assertIn("_Z3foov uses local memory", output.getvalue())
        self.assertIn("docs/cuda_kernels.md lacks foo()", output.getvalue())


class Roofline(unittest.TestCase):
    def test_occupancy_is_what_the_tightest_limit_leaves(self):
        for (threads, registers, shared), blocks, limit in [
                ((256, 32, 0), 8, "threads"), ((256, 40, 0), 6, "registers"), ((256, 255, 0), 1, "registers"),
                ((32, 16, 0), 32, "blocks"), ((128, 32, 32 * 1024), 6, "shared memory"), ((128, 32, 227 * 1024), 1, "shared memory")]:
            seen = cuda_roofline.occupancy(threads, registers, shared)
            self.assertEqual((seen.blocks, seen.limit), (blocks, limit))
        self.assertEqual(cuda_roofline.occupancy(256, 40, 0).share, 0.75)

    def test_launches_are_those_of_the_sources(self):
        root = cuda_kernels.ROOT
        self.assertEqual(cuda_roofline.launch_of(root, "attention.cu", "MlaAttentionKernel"), cuda_roofline.Launch(128, 32768))
        self.assertEqual(cuda_roofline.launch_of(root, "linear.cu", "LinearKernel"), cuda_roofline.Launch(256, 0))
        # V4.1-Flash has the widest experts.
        self.assertEqual(cuda_roofline.launch_of(root, "grouped_experts.cu", "ExpertKernel"), cuda_roofline.Launch(256, 4 * 2304))

    def test_bytes_and_flops_of_a_step_follow_from_the_config(self):
        config = cuda_roofline.config_of(cuda_kernels.ROOT, "deepseek_v3")
        ops = {op.name: op for op in cuda_roofline.ops_of(config, 1)}
        projection = ops["q_a projection"]
        self.assertEqual(projection.flops, 2 * 7168 * 1536)
        self.assertEqual(projection.bytes, 7168 * 1536 * (1 + 4 / 128 / 128) + 4 * (7168 + 1536))
        # One token: eight items, one expert each or nearly so.
        experts = next(op for name, op in ops.items() if name.startswith("experts"))
        self.assertEqual(experts.flops, 8 * 6 * 7168 * 2048)
        self.assertLess(experts.bytes, 8 * 3 * 7168 * 2048 * 1.01)

    def test_tiles_of_fp8_products_are_those_of_the_configs_test(self):
        # kernels/cuda/products/fp8_gemm_config_test.cc has the same shapes.
        def tile(*shape):
            return tensor_core_roofline.choose(tensor_core_roofline.Product("", *shape), 132)
        for shape, expected, shared in [((16, 7168, 2048), (64, 16, 8), 83200), ((2048, 7168, 16384), (128, 128, 6), 200800)]:
            seen = tile(*shape)
            self.assertEqual((seen.outputs, seen.tokens, seen.stages), expected)
            self.assertEqual(seen.shared(shape[2]), shared)
        self.assertEqual(tile(8, 7168, 2048, 32).outputs, 128)
        # fp4_gemm_config_test.cc likewise.
        for tokens, expected in [(16, (128, 16, 8, 384, 144992)), (512, (128, 64, 8, 384, 195168))]:
            seen = tile(tokens, 2048, 7168, 32, True)
            self.assertEqual((seen.outputs, seen.tokens, seen.stages, seen.threads, seen.shared(7168)), expected)
        self.assertEqual(cuda_roofline.launch_of(cuda_kernels.ROOT, "fp8_gemm.cu", "Fp8GemmKernel<2,128>"), cuda_roofline.Launch(288, 200800))

    def test_launches_of_mla_decode_are_those_of_its_configs_test(self):
        # kernels/cuda/mla/mla_decode_config_test.cc has the same bytes.
        self.assertEqual(cuda_roofline.launch_of(cuda_kernels.ROOT, "mla_decode.cu", "MlaDecodeKernel<BulkRows>"), cuda_roofline.Launch(256, 222016))
        self.assertEqual(cuda_roofline.launch_of(cuda_kernels.ROOT, "mla_decode.cu", "MergeSplitsKernel"), cuda_roofline.Launch(128, 0))
        self.assertEqual(cuda_roofline.launch_of(cuda_kernels.ROOT, "mla_decode.cu", "PackMlaQueriesKernel"), cuda_roofline.Launch(256, 0))
        self.assertEqual(cuda_roofline.launch_of(cuda_kernels.ROOT, "mla_decode.cu", "MlaDecodeKernel<PackedRows>"), cuda_roofline.Launch(256, 226112))

    def test_a_prediction_of_mla_decode_is_never_better_than_the_roofline(self):
        machine = {"hbm": cuda_roofline.HBM, "peak": cuda_roofline.PEAK["bf16"], "clock": cuda_roofline.CLOCK}
        for _, heads, tokens, rows in mla_roofline.CASES + mla_roofline.PACKED_CASES:
            for split, kind in ((512, "bf16"), (1024, "bf16"), (1024, "fp8")):
                decode = mla_roofline.Decode(heads, tokens, rows, split, kind)
                self.assertGreaterEqual(max(mla_roofline.bounds(decode, 132, machine).values()), mla_roofline.roofline_seconds(decode, machine))
        # 64 tokens of 8192 rows: V3's cache of 1152 bytes a row.
        self.assertAlmostEqual(mla_roofline.Decode(128, 64, 8192).bytes, 64 * (8192 * 1152 + 128 * (1152 + 2048)))

    def test_a_prediction_of_an_fp8_product_is_never_better_than_the_roofline(self):
        machine = {"hbm": cuda_roofline.HBM, "l2": cuda_roofline.L2, "peak": cuda_roofline.PEAK["fp8"], "latency": cuda_roofline.LATENCY,
                   "clock": cuda_roofline.CLOCK}
        for name in cuda_roofline.MODELS:
            for rows in (1, 64, 2048):
                for op in cuda_roofline.tensor_core_ops(cuda_roofline.config_of(cuda_kernels.ROOT, name), rows):
                    seconds = max(tensor_core_roofline.bounds(op, tensor_core_roofline.choose(op, 132), 132, machine).values())
                    self.assertGreaterEqual(seconds * 1.0001, max(op.bytes / machine["hbm"], op.flops / machine["peak"]), f"{name} {op}")

    def test_a_prediction_is_never_better_than_the_roofline(self):
        for name in cuda_roofline.MODELS:
            config = cuda_roofline.config_of(cuda_kernels.ROOT, name)
            for rows in (1, 64, 2048):
                for op in cuda_roofline.ops_of(config, rows):
                    fit = cuda_roofline.occupancy(256, 32, 0)
                    seconds, _ = cuda_roofline.predicted_seconds(op, fit, 256)
                    self.assertGreaterEqual(seconds, cuda_roofline.roofline_seconds(op), f"{name} {op}")


if __name__ == "__main__":
    unittest.main()
