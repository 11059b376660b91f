#include "kernels/cpu/attend_body.h"
#include "kernels/cpu/gemm_body.h"
#include "kernels/cpu/level.h"
#include "kernels/cpu/qgemm_body.h"
#include "kernels/cpu/rows_body.h"

static bool supported(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

static bool supported_bf16(void) {
    return supported() && __builtin_cpu_supports("avx512bf16");
}

/* Zen 4 and 5 do a dot of pairs in the time of a multiply-add. Intel's cores take twice that (92
 * against 185 GFLOP/s measured on a Sapphire Rapids), so widening the weights is as fast there, and
 * more exact. */
static bool preferred_bf16(void) {
    return __builtin_cpu_is("amd");
}

const struct level LEVEL_AVX512 = {
    .name = "avx512",
    .numerics_id = "cpu-avx512-f32-1",
    .supported = supported,
    .gemm = gemm,
    .gemm_quant = gemm_quant,
    .attend = attend,
    .attend_merge = attend_merge,
    .qkv = qkv,
    .norm = norm,
    .embed = embed,
    .pool = pool,
    .most = most,
    .weights = weights,
};

/* As above, but bf16 weights meet activations that are rounded to bf16 as well. */
const struct level LEVEL_AVX512BF16 = {
    .name = "avx512bf16",
    .numerics_id = "cpu-avx512bf16-f32-1",
    .supported = supported_bf16,
    .preferred = preferred_bf16,
    .gemm = gemm_dots,
    .gemm_quant = gemm_quant,
    .attend = attend,
    .attend_merge = attend_merge,
    .qkv = qkv,
    .norm = norm,
    .embed = embed,
    .pool = pool,
    .most = most,
    .weights = weights,
};
