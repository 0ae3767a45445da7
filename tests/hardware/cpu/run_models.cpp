// The kernels of the models on blocks of exactly their size, with one thread and with several, beside the formulas in
// double. Exits 1 at the first difference.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "cpu/isa/kernels.h"
#include "cpu/models.h"
#include "math/coupling.h"
#include "math/gaussian.h"
#include "math/half.h"
#include "math/lstm.h"

namespace {

using geco::DataType;
using geco::Extent;
using geco::PerExample;
using geco::Strided;

constexpr int kThreads = 3;
long calls = 0;

struct ScalarMath {
  using Real = double;
  static double exp(double x) { return std::exp(x); }
  static geco::Exponential<double> exponential(double x) { return {std::exp(x), std::expm1(x)}; }
  static double reciprocal(double x) { return 1 / x; }
  static double absolute(double x) { return std::fabs(x); }
  static double with_sign_of(double x, double magnitude) { return std::copysign(magnitude, x); }
};

// [batch, rows, parts * inner], dense, in a block of exactly its size; `gap` numbers lie between rows.
class Operand {
 public:
  Operand(DataType type, const Extent& extent, std::int64_t parts, std::int64_t gap)
      : type_(type), row_(parts * extent.inner + gap), example_(extent.rows * row_) {
    const std::int64_t used = extent.batch * example_ - gap;
    bytes_ = static_cast<std::size_t>(used * geco::size_of(type));
    memory_.reset(new char[bytes_]);
    static std::mt19937 random(5);
    std::normal_distribution<float> normal(0.0f, 0.5f);  // what half types can hold of exponentials
    for (std::int64_t i = 0; i < used; ++i) set(i, normal(random));
  }

  Strided strided() const { return {memory_.get(), example_, row_}; }
  std::int64_t place(std::int64_t example, std::int64_t row, std::int64_t i) const {
    return example * example_ + row * row_ + i;
  }
  bool same_bits(const Operand& other) const { return std::memcmp(memory_.get(), other.memory_.get(), bytes_) == 0; }

  double at(std::int64_t i) const {
    const void* data = memory_.get();
    switch (type_) {
      case DataType::kFloat64: return static_cast<const double*>(data)[i];
      case DataType::kFloat32: return static_cast<const float*>(data)[i];
      case DataType::kFloat16: return geco::to_float(static_cast<const geco::Half*>(data)[i]);
      default: return geco::to_float(static_cast<const geco::BFloat16*>(data)[i]);
    }
  }

 private:
  void set(std::int64_t i, float value) {
    void* data = memory_.get();
    switch (type_) {
      case DataType::kFloat64: static_cast<double*>(data)[i] = value; break;
      case DataType::kFloat32: static_cast<float*>(data)[i] = value; break;
      case DataType::kFloat16: static_cast<geco::Half*>(data)[i] = geco::to_half(value); break;
      default: static_cast<geco::BFloat16*>(data)[i] = geco::to_bfloat16(value);
    }
  }

  DataType type_;
  std::int64_t row_, example_;
  std::size_t bytes_ = 0;
  std::unique_ptr<char[]> memory_;
};

// Of a call: inputs with gaps between rows, outputs (made twice: by one thread, by several) without.
struct Problem {
  DataType type;
  Extent extent;
  std::int64_t gap;

  Operand input(std::int64_t parts = 1) const { return Operand(type, extent, parts, gap); }
  Operand output(std::int64_t parts = 1) const { return Operand(type, extent, parts, 0); }
  double tolerance() const {
    return type == DataType::kFloat64   ? 1e-13
           : type == DataType::kFloat32 ? 1e-5
           : type == DataType::kFloat16 ? 2e-3
                                        : 1e-2;
  }
};

void expect(double found, double wanted, double tolerance, const char* what) {
  if (std::fabs(found - wanted) <= tolerance * (1 + std::fabs(wanted))) return;
  std::printf("%s: %.17g, expected %.17g\n", what, found, wanted);
  std::exit(1);
}

void expect_same(const Operand& one, const Operand& several, const char* what) {
  if (one.same_bits(several)) return;
  std::printf("%s: other bits with %d threads\n", what, kThreads);
  std::exit(1);
}

// A number for each example, in the type that sums have.
struct Sums {
  explicit Sums(const Problem& problem)
      : operand(problem.type == DataType::kFloat64 ? DataType::kFloat64 : DataType::kFloat32,
                Extent{problem.extent.batch, 1, 1}, 1, 0) {}
  PerExample numbers() const { return {operand.strided().data, 1}; }
  Operand operand;
};

template <class Call>
Call call_of(const Problem& problem) {
  Call call;
  call.type = problem.type;
  call.extent = problem.extent;
  return call;
}

template <class Body>
void each(const Extent& extent, const Body& body) {
  for (std::int64_t e = 0; e < extent.batch; ++e) {
    for (std::int64_t r = 0; r < extent.rows; ++r) {
      for (std::int64_t i = 0; i < extent.inner; ++i) body(e, r, i);
    }
  }
}

void gaussian(const Problem& problem, bool with_prior) {
  const Operand q_mean = problem.input(), q_log_std = problem.input(), p_mean = problem.input(),
                p_log_std = problem.input(), noise = problem.input(), grad_z = problem.output();
  const Sums grad_kl(problem);
  std::vector<Operand> out[2];
  std::vector<Sums> kl;
  for (int k = 0; k < 2; ++k) {
    const int threads = k == 0 ? 1 : kThreads;
    for (int n = 0; n < 5; ++n) out[k].push_back(problem.output());
    kl.emplace_back(problem);
    auto forward = call_of<geco::GaussianCall>(problem);
    auto backward = call_of<geco::GaussianBackwardCall>(problem);
    forward.q_mean = backward.q_mean = q_mean.strided();
    forward.q_log_std = backward.q_log_std = q_log_std.strided();
    forward.noise = backward.noise = noise.strided();
    backward.grad_z = grad_z.strided();
    backward.grad_kl = grad_kl.numbers();
    forward.z = out[k][0].strided();
    forward.kl = kl.back().numbers();
    backward.of_q_mean = out[k][1].strided();
    backward.of_q_log_std = out[k][2].strided();
    if (with_prior) {
      forward.p_mean = backward.p_mean = p_mean.strided();
      forward.p_log_std = backward.p_log_std = p_log_std.strided();
      backward.of_p_mean = out[k][3].strided();
      backward.of_p_log_std = out[k][4].strided();
    }
    geco::cpu::compute(forward, threads);
    geco::cpu::compute(backward, threads);
    calls += 2;
  }
  std::vector<double> sums(static_cast<std::size_t>(problem.extent.batch));
  each(problem.extent, [&](std::int64_t e, std::int64_t r, std::int64_t i) {
    const std::int64_t in = q_mean.place(e, r, i), at = grad_z.place(e, r, i);
    const geco::Gaussian<double> q{q_mean.at(in), q_log_std.at(in)}, p{p_mean.at(in), p_log_std.at(in)};
    const auto gap = with_prior ? geco::gap_from_prior<ScalarMath>(q, p) : geco::gap_from_standard<ScalarMath>(q);
    const auto sample = geco::gaussian_sample<ScalarMath>(q.mean, noise.at(in), gap);
    const auto gradients =
        geco::gaussian_gradients<ScalarMath>(grad_z.at(at), grad_kl.operand.at(e), noise.at(in), gap);
    expect(out[0][0].at(at), sample.z, problem.tolerance(), "z");
    expect(out[0][1].at(at), gradients.q_mean, problem.tolerance(), "gradient of q_mean");
    expect(out[0][2].at(at), gradients.q_log_std, problem.tolerance(), "gradient of q_log_std");
    if (with_prior) {
      expect(out[0][3].at(at), gradients.p_mean, problem.tolerance(), "gradient of p_mean");
      expect(out[0][4].at(at), gradients.p_log_std, problem.tolerance(), "gradient of p_log_std");
    }
    sums[static_cast<std::size_t>(e)] += sample.kl;
  });
  for (int n = 0; n < (with_prior ? 5 : 3); ++n) expect_same(out[0][n], out[1][n], "Gaussian");
  expect_same(kl[0].operand, kl[1].operand, "KL");
  for (std::size_t e = 0; e < sums.size(); ++e) {
    expect(kl[0].operand.at(static_cast<std::int64_t>(e)), sums[e], 1e-5, "KL");
  }
}

void gates(const Problem& problem) {
  const Operand gates = problem.input(4), cell = problem.input(), grad_hidden = problem.output();
  std::vector<Operand> out[2], of_gates;
  for (int k = 0; k < 2; ++k) {
    const int threads = k == 0 ? 1 : kThreads;
    for (int n = 0; n < 3; ++n) out[k].push_back(problem.output());
    of_gates.push_back(problem.output(4));
    auto forward = call_of<geco::GatesCall>(problem);
    auto backward = call_of<geco::GatesBackwardCall>(problem);
    forward.gates = backward.gates = gates.strided();
    forward.cell = backward.cell = cell.strided();
    forward.hidden = out[k][0].strided();
    forward.new_cell = out[k][1].strided();
    backward.grad_hidden = grad_hidden.strided();  // that of the cell is absent
    backward.of_gates = of_gates.back().strided();
    backward.of_cell = out[k][2].strided();
    geco::cpu::compute(forward, threads);
    geco::cpu::compute(backward, threads);
    calls += 2;
  }
  const std::int64_t apart = problem.extent.inner;
  each(problem.extent, [&](std::int64_t e, std::int64_t r, std::int64_t i) {
    const std::int64_t in = gates.place(e, r, i), at = grad_hidden.place(e, r, i), of = of_gates[0].place(e, r, i);
    const geco::Gates<double> four{gates.at(in), gates.at(in + apart), gates.at(in + 2 * apart),
                                   gates.at(in + 3 * apart)};
    const double before = cell.at(cell.place(e, r, i));
    const auto next = geco::lstm_gates<ScalarMath>(four, before);
    const auto gradients = geco::lstm_gradients<ScalarMath>(grad_hidden.at(at), 0.0, four, before);
    expect(out[0][0].at(at), next.hidden, problem.tolerance(), "hidden");
    expect(out[0][1].at(at), next.cell, problem.tolerance(), "cell");
    expect(out[0][2].at(at), gradients.cell, problem.tolerance(), "gradient of the cell");
    expect(of_gates[0].at(of), gradients.gates.input, problem.tolerance(), "gradient of the input gate");
    expect(of_gates[0].at(of + apart), gradients.gates.forget, problem.tolerance(), "gradient of the forget gate");
    expect(of_gates[0].at(of + 2 * apart), gradients.gates.candidate, problem.tolerance(), "gradient of the candidate");
    expect(of_gates[0].at(of + 3 * apart), gradients.gates.output, problem.tolerance(), "gradient of the output gate");
  });
  for (int n = 0; n < 3; ++n) expect_same(out[0][n], out[1][n], "gates");
  expect_same(of_gates[0], of_gates[1], "gradient of gates");
}

template <bool inverse>
void coupling(const Problem& problem) {
  const Operand x = problem.input(), log_scale = problem.input(), shift = problem.input(), grad_y = problem.output();
  const Sums grad_log_det(problem);
  std::vector<Operand> out[2];
  std::vector<Sums> log_det;
  for (int k = 0; k < 2; ++k) {
    const int threads = k == 0 ? 1 : kThreads;
    for (int n = 0; n < 4; ++n) out[k].push_back(problem.output());
    log_det.emplace_back(problem);
    auto forward = call_of<geco::CouplingCall>(problem);
    auto backward = call_of<geco::CouplingBackwardCall>(problem);
    forward.inverse = backward.inverse = inverse;
    forward.x = backward.value = x.strided();
    forward.log_scale = backward.log_scale = log_scale.strided();
    forward.shift = shift.strided();
    forward.y = out[k][0].strided();
    forward.log_det = log_det.back().numbers();
    backward.grad_y = grad_y.strided();
    backward.grad_log_det = grad_log_det.numbers();
    backward.of_x = out[k][1].strided();
    backward.of_log_scale = out[k][2].strided();
    if (inverse) backward.of_shift = out[k][3].strided();
    geco::cpu::compute(forward, threads);
    geco::cpu::compute(backward, threads);
    calls += 2;
  }
  each(problem.extent, [&](std::int64_t e, std::int64_t r, std::int64_t i) {
    const std::int64_t in = x.place(e, r, i), at = grad_y.place(e, r, i);
    const auto made = geco::affine_coupling<inverse, ScalarMath>(x.at(in), log_scale.at(in), shift.at(in));
    const auto gradients = geco::coupling_gradients<inverse, ScalarMath>(grad_y.at(at), grad_log_det.operand.at(e),
                                                                         x.at(in), log_scale.at(in));
    expect(out[0][0].at(at), made.y, problem.tolerance(), "y");
    expect(out[0][1].at(at), gradients.x, problem.tolerance(), "gradient of x");
    expect(out[0][2].at(at), gradients.log_scale, problem.tolerance(), "gradient of log_scale");
    if (inverse) expect(out[0][3].at(at), -gradients.x, problem.tolerance(), "gradient of shift");
  });
  for (int n = 0; n < (inverse ? 4 : 3); ++n) expect_same(out[0][n], out[1][n], "coupling");
  expect_same(log_det[0].operand, log_det[1].operand, "log-determinant");
}

}  // namespace

int main() {
  // Less than a vector and a little more, pieces of an example, pixels with gaps between them, nothing at all.
  const Extent extents[] = {{3, 1, 24}, {2, 1, 5}, {700, 1, 33}, {2, 1, 20001}, {3, 200, 24}, {2, 9, 3}, {2, 1, 0}};
  for (const DataType type : {DataType::kFloat32, DataType::kFloat64, DataType::kFloat16, DataType::kBFloat16}) {
    for (const Extent& extent : extents) {
      for (const std::int64_t gap : {0, 7}) {
        if (extent.inner == 0 && gap > 0) continue;
        const Problem problem{type, extent, gap};
        gaussian(problem, true);
        gaussian(problem, false);
        gates(problem);
        coupling<false>(problem);
        coupling<true>(problem);
      }
    }
  }
  std::printf("%s: %ld calls\n", geco::cpu::kernels().instruction_set, calls);
  return 0;
}
