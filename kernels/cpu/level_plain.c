#include "kernels/cpu/attend_body.h"
#include "kernels/cpu/gemm_body.h"
#include "kernels/cpu/level.h"
#include "kernels/cpu/qgemm_body.h"
#include "kernels/cpu/rows_body.h"

static bool supported(void) {
    return true;
}

const struct level LEVEL_PLAIN = {
    .name = "plain",
    .numerics_id = "cpu-plain-f32-1",
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
