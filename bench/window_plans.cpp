// How calls with windows are shared out on an H100, for predictions.py: one line each of
// name, size and smaller size of the kernel's patches, its channels and columns, warps on a multiprocessor, pairs of
// rows (or rows, of a kernel for any size) that the slowest warp takes.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "cuda/elementwise_plan.h"
#include "cuda/plan.h"

using geco::ConstraintKind;

namespace {

constexpr geco::cuda::DeviceSize kH100{132, 50 << 20, 228 << 10, 227 << 10};

void print_plan(const char* name, std::int64_t batch, std::int64_t side,
                const std::vector<geco::Constraint>& windowed) {
  geco::Tensor images;
  images.data = reinterpret_cast<void*>(4096);
  images.rank = 4;
  const std::int64_t sizes[] = {batch, 3, side, side}, strides[] = {3 * side * side, side * side, side, 1};
  std::copy(sizes, sizes + 4, images.sizes);
  std::copy(strides, strides + 4, images.strides);
  geco::LossCall call;
  call.constraints = &windowed;
  call.inputs = {{images, images, images}};
  call.batch = batch;
  call.state.constraints = static_cast<int>(windowed.size());
  const geco::cuda::Plan plan = geco::cuda::plan_of(call, geco::cuda::Outcome::kTraining, kH100);
  const geco::cuda::Strips& strips = plan.strips;
  const geco::cuda::Operand& operand = plan.operands[0];
  const std::int64_t parts = operand.elements * operand.channels;
  const std::int64_t warps = std::min<std::int64_t>(geco::cuda::ceil_div(parts, kH100.multiprocessors), strips.warps);
  int largest = 1;
  for (int w = 0; w < plan.window_count; ++w) largest = std::max<int>(largest, plan.windows[w].size);
  // Where a warp's rows end one column of strips and begin another, the line between them has a halo less to do.
  const std::int64_t rows = strips.rows + 2 * (largest - 1);
  const std::int64_t passes = geco::cuda::ceil_div(parts, warps * kH100.multiprocessors);
  const bool pairs = strips.kernel.size > 0;
  std::printf("%s;%d;%d;%d;%d;%d;%d\n", name, strips.kernel.size, strips.kernel.smaller, strips.kernel.channels,
              strips.kernel.columns, static_cast<int>(warps),
              static_cast<int>(passes * (pairs ? geco::cuda::ceil_div(rows + 1, 2) : rows)));
}

geco::Constraint constraint(ConstraintKind kind, int row, int size, bool per_channel = false) {
  geco::Constraint result;
  result.kind = kind;
  result.first_row = row;
  result.inputs = {0};
  result.patches = {size, 1, 1e-5, per_channel};
  return result;
}

}  // namespace

int main() {
  const ConstraintKind kNcc = ConstraintKind::kPatchCorrelation, kRe = ConstraintKind::kSquaredError;
  print_plan("RE + pNCC 8, 16x3x1024x1024", 16, 1024, {constraint(kRe, 0, 1), constraint(kNcc, 1, 8)});
  print_plan("pNCC 11 per channel, 16x3x1024x1024", 16, 1024, {constraint(kNcc, 0, 11, true)});
  print_plan("RE + pNCC 4, 16x3x1024x1024", 16, 1024, {constraint(kRe, 0, 1), constraint(kNcc, 1, 4)});
  print_plan("RE + pNCC 16, 16x3x1024x1024", 16, 1024, {constraint(kRe, 0, 1), constraint(kNcc, 1, 16)});
  print_plan("RE + pNCC 4 + pNCC 8 + local statistics 8, 64x3x32x32", 64, 32,
             {constraint(kRe, 0, 1), constraint(kNcc, 1, 4), constraint(kNcc, 2, 8),
              constraint(ConstraintKind::kLocalStatistics, 3, 8)});
}
