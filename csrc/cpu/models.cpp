#include "cpu/models.h"

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "cpu/isa/kernels.h"
#include "cpu/parallel.h"

namespace geco::cpu {
namespace {

// Numbers of each operand that a thread works on at a time.
constexpr std::int64_t kBlock = 1 << 13;

// Every element takes the time of a few exponentials: threads pay off for fewer of them than elsewhere.
constexpr std::int64_t kParallelNumbers = kParallelElements / 4;

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Rows that follow each other without gaps in all operands are one row.
void merge_rows(Extent& extent, std::initializer_list<Strided> operands) {
  const auto follows = [&extent](const Strided& operand) { return !operand || operand.row_stride == extent.inner; };
  if (extent.rows > 1 && !std::all_of(operands.begin(), operands.end(), follows)) return;
  extent.inner *= extent.rows;
  extent.rows = 1;
}

// How the numbers of a call are cut into blocks: some small examples, or pieces of a large one. It depends on the
// extent alone, so that sums do not depend on the number of threads.
class Blocks {
 public:
  explicit Blocks(const Extent& extent) : extent_(extent) {
    examples_ = at_most(extent.batch, kBlock / std::max<std::int64_t>(1, extent.rows * extent.inner));
    rows_ = at_most(extent.rows, kBlock / std::max<std::int64_t>(1, extent.inner));
    length_ = extent.rows > 1 ? extent.inner : at_most(extent.inner, kBlock);
    pieces_ = std::max<std::int64_t>(1, ceil_divide(extent.rows, rows_) * ceil_divide(extent.inner, length_));
  }

  std::int64_t count() const { return ceil_divide(extent_.batch, examples_) * pieces_; }
  std::int64_t pieces() const { return pieces_; }  // of each example; there are several only where a block has one

  Block block(std::int64_t index) const {
    const std::int64_t example = index / pieces_ * examples_, piece = index % pieces_;
    const std::int64_t row = extent_.rows > 1 ? piece * rows_ : 0, begin = extent_.rows > 1 ? 0 : piece * length_;
    return {example, std::min(examples_, extent_.batch - example), row, std::min(rows_, extent_.rows - row),
            begin,   std::min(length_, extent_.inner - begin)};
  }

 private:
  static std::int64_t at_most(std::int64_t limit, std::int64_t wanted) {
    return std::max<std::int64_t>(1, std::min(limit, wanted));
  }

  Extent extent_;
  std::int64_t examples_, rows_, length_, pieces_;
};

// `sums` has a number for each piece of each example, or is null.
template <class Call>
void run(const Call& call, const Blocks& blocks, BlockKernel<Call> kernel, double* sums, int threads) {
  const Extent& extent = call.extent;
  const bool small = extent.batch * extent.rows * extent.inner < kParallelNumbers;
  parallel_for(blocks.count(), small ? 1 : threads, [&](std::int64_t index) {
    const Block block = blocks.block(index);
    const std::int64_t first_sum = block.first_example * blocks.pieces() + index % blocks.pieces();
    kernel(call, block, sums == nullptr ? nullptr : sums + first_sum);
  });
}

template <class Call>
void run(const Call& call, BlockKernel<Call> kernel, int threads) {
  run(call, Blocks(call.extent), kernel, nullptr, threads);
}

template <class Real>
void write_sums(const std::vector<double>& sums, std::int64_t pieces, const PerExample& out) {
  for (std::size_t first = 0, example = 0; first < sums.size(); first += pieces, ++example) {
    double total = 0;
    for (std::int64_t piece = 0; piece < pieces; ++piece) total += sums[first + piece];
    static_cast<Real*>(out.data)[example * out.stride] = static_cast<Real>(total);
  }
}

template <class Call>
void run_and_sum(const Call& call, BlockKernel<Call> kernel, const PerExample& out, int threads) {
  const Blocks blocks(call.extent);
  std::vector<double> sums(static_cast<std::size_t>(call.extent.batch * blocks.pieces()));
  run(call, blocks, kernel, sums.data(), threads);
  if (call.type == DataType::kFloat64) {
    write_sums<double>(sums, blocks.pieces(), out);
  } else {
    write_sums<float>(sums, blocks.pieces(), out);
  }
}

int index_of(DataType type) { return static_cast<int>(type); }

}  // namespace

void compute(const GaussianCall& given, int threads) {
  GaussianCall call = given;
  merge_rows(call.extent, {call.q_mean, call.q_log_std, call.p_mean, call.p_log_std, call.noise, call.z});
  run_and_sum(call, kernels().gaussian[index_of(call.type)][bool(call.p_mean)], call.kl, threads);
}

void compute(const GaussianBackwardCall& given, int threads) {
  GaussianBackwardCall call = given;
  merge_rows(call.extent, {call.grad_z, call.q_mean, call.q_log_std, call.p_mean, call.p_log_std, call.noise,
                           call.of_q_mean, call.of_q_log_std, call.of_p_mean, call.of_p_log_std});
  run(call, kernels().gaussian_backward[index_of(call.type)][bool(call.p_mean)], threads);
}

void compute(const GatesCall& call, int threads) { run(call, kernels().gates[index_of(call.type)], threads); }

void compute(const GatesBackwardCall& call, int threads) {
  run(call, kernels().gates_backward[index_of(call.type)], threads);
}

void compute(const CouplingCall& given, int threads) {
  CouplingCall call = given;
  merge_rows(call.extent, {call.x, call.log_scale, call.shift, call.y});
  run_and_sum(call, kernels().coupling[index_of(call.type)][call.inverse], call.log_det, threads);
}

void compute(const CouplingBackwardCall& given, int threads) {
  CouplingBackwardCall call = given;
  merge_rows(call.extent, {call.grad_y, call.value, call.log_scale, call.of_x, call.of_log_scale, call.of_shift});
  run(call, kernels().coupling_backward[index_of(call.type)][call.inverse], threads);
}

}  // namespace geco::cpu
