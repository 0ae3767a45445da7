// Runs the C++ kernels of the CPU on tensors in blocks of exactly their size, on several threads, and compares what
// they write with sums over the definitions. Usage: run_lagrangian pixels | windows | overrun | race. Exits 1 at the
// first difference; the last two are wrong on purpose, so that a sanitizer that misses it shows.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "exact.h"
#include "naive.h"

namespace {

using arrays::Array;
using arrays::Exact;
using arrays::Layout;
using arrays::Sizes;
using definitions::kErrorCount;
using definitions::kErrors;
using geco::Constraint;
using geco::ConstraintKind;
using geco::Counter;
using geco::DataType;
using geco::LossCall;
using geco::MultiplierUpdate;
using geco::Patches;
using geco::Row;
using geco::State;
using geco::Tensor;

constexpr DataType kFloats[] = {DataType::kFloat32, DataType::kFloat64, DataType::kFloat16, DataType::kBFloat16};
constexpr Layout kLayouts[] = {Layout::kContiguous, Layout::kChannelsLast, Layout::kReversed, Layout::kShifted,
                               Layout::kWider};
constexpr int kThreads = 3;
constexpr MultiplierUpdate kUpdate = {0.9, 0.05, 0.5, 1.0, geco::Violation::kLog, 1};

std::mt19937 random_numbers(7);
std::string scenario;
long calls = 0;

[[noreturn]] void fail(const std::string& what) {
  std::printf("%s: %s\n", scenario.c_str(), what.c_str());
  std::exit(1);
}

void expect_close(const std::string& what, double got, double expected, double allowed) {
  if (std::fabs(got - expected) <= allowed) return;
  fail(what + ": got " + std::to_string(got) + ", expected " + std::to_string(expected));
}

double multiplier_of(int row) { return 0.5 + 0.25 * row; }
double kappa_of(int row) { return 0.2 + 0.05 * row; }

struct Problem {
  std::vector<Constraint> constraints;
  std::vector<Array> predictions, targets;
  Array weights;  // of the first input
  Array kl;
  bool wants_gradients = true, expanded_target = false;
  int row_count = 0;

  void add_input(DataType of_prediction, DataType of_target, const Sizes& sizes, Layout layout = Layout::kContiguous,
                 Layout layout_of_target = Layout::kContiguous) {
    predictions.push_back(Array(of_prediction, sizes, layout).fill(random_numbers));
    targets.push_back(Array(of_target, sizes, layout_of_target).fill(random_numbers));
  }

  Constraint& add_constraint(ConstraintKind kind, std::vector<int> inputs = {0}, int rows = 1) {
    Constraint constraint;
    constraint.kind = kind;
    constraint.first_row = row_count;
    constraint.rows = rows;
    constraint.inputs = std::move(inputs);
    constraint.eps = definitions::parameter_of(kind);
    row_count += rows;
    constraints.push_back(std::move(constraint));
    return constraints.back();
  }

  // Every windowed constraint of these patches.
  void add_windows(std::int64_t size, std::int64_t stride, double eps = 1e-3) {
    add_constraint(ConstraintKind::kPatchCorrelation).patches = {size, stride, eps, false};
    add_constraint(ConstraintKind::kPatchCorrelation).patches = {size, stride, eps, true};
    add_constraint(ConstraintKind::kLocalStatistics).patches = {size, stride, eps, false};
    add_constraint(ConstraintKind::kStructuralSimilarity).patches = {size, stride, eps, true};
  }

  // Of arithmetic in the narrowest type that is stored: the gradients of half types are float32.
  double tolerance() const {
    for (const Array& array : predictions) {
      if (array.type() != DataType::kFloat64) return 2e-5;
    }
    return 1e-10;
  }
};

// What the kernels read and write, each in a block of its own.
struct Memory {
  std::vector<Exact> predictions, targets, gradients;
  Exact kl, kl_gradient, weights;
  std::unique_ptr<double[]> state;
  std::unique_ptr<double> loss{new double(0)};
  int words;

  explicit Memory(const Problem& problem)
      : kl(problem.kl),
        weights(problem.weights),
        words(static_cast<int>(Row::kCount) * problem.row_count + static_cast<int>(Counter::kCount)) {
    for (std::size_t i = 0; i < problem.predictions.size(); ++i) {
      predictions.emplace_back(problem.predictions[i]);
      targets.emplace_back(problem.targets[i]);
      gradients.emplace_back(gradient_of(problem, i));
    }
    if (kl.tensor()) kl_gradient = Exact(Array(DataType::kFloat32, {problem.kl.elements()}));
    state.reset(new double[static_cast<std::size_t>(words)]());
    const State rows{state.get(), problem.row_count};
    for (int l = 0; l < problem.row_count; ++l) {
      rows.at(Row::kLogMultiplier, l) = std::log(multiplier_of(l));
      rows.at(Row::kKappa, l) = kappa_of(l);
      rows.at(Row::kLogLow, l) = -10;
      rows.at(Row::kLogHigh, l) = 10;
      rows.at(Row::kScale, l) = rows.at(Row::kNaturalMultiplier, l) = 1;
    }
  }

  // Laid out like the prediction, as torch.empty_like does where memory has no gaps.
  static Array gradient_of(const Problem& problem, std::size_t i) {
    const Array& prediction = problem.predictions[i];
    const Tensor tensor = prediction.tensor();
    if (!problem.wants_gradients) return Array();
    const Layout layout = tensor.rank == 4 && tensor.strides[1] == 1 ? Layout::kChannelsLast : Layout::kContiguous;
    return Array(arrays::gradient_type(prediction.type()), Sizes(tensor.sizes, tensor.sizes + tensor.rank), layout);
  }

  LossCall call(const Problem& problem, const MultiplierUpdate* update, int threads) {
    LossCall call;
    call.constraints = &problem.constraints;
    for (std::size_t i = 0; i < predictions.size(); ++i) {
      call.inputs.push_back({predictions[i].tensor(), targets[i].tensor(), gradients[i].tensor(), {}});
    }
    call.inputs[0].weights = arrays::weights_tensor(weights.tensor());
    if (problem.expanded_target) call.inputs[0].target.strides[0] = 0;
    call.kl = kl.tensor();
    call.kl_gradient = kl_gradient.tensor();
    call.state = {state.get(), problem.row_count};
    call.batch = problem.predictions[0].tensor().sizes[0];
    call.image_elements = problem.predictions[0].elements() / call.batch;
    call.update = update;
    call.loss = loss.get();
    call.loss_is_double = true;
    call.threads = threads;
    return call;
  }
};

// The constraint vector; the gradients are left in the pairs.
std::vector<double> expected_constraints(const Problem& problem, std::vector<naive::Pair>& pairs) {
  std::vector<double> result;
  for (const Constraint& constraint : problem.constraints) {
    naive::Pair& pair = pairs[static_cast<std::size_t>(constraint.inputs[0])];
    for (int row = constraint.first_row; row < constraint.first_row + constraint.rows; ++row) {
      const double multiplier = multiplier_of(row), kappa = kappa_of(row);
      if (geco::is_elementwise(constraint.kind)) {
        const int channel = constraint.rows > 1 ? row - constraint.first_row : -1;
        const bool squared = geco::scale_rule(constraint.kind) == geco::ScaleRule::kKappaSquared;
        result.push_back(naive::error(pairs, constraint, channel, multiplier) - (squared ? kappa * kappa : kappa));
      } else if (constraint.kind == ConstraintKind::kSimilarity) {
        result.push_back(kappa - naive::mean(pair, -multiplier));
      } else {
        const double value = naive::windowed(pair, constraint, multiplier);
        const bool similarity = constraint.kind != ConstraintKind::kLocalStatistics;
        result.push_back(similarity ? kappa - value : value - kappa * kappa);
      }
    }
  }
  return result;
}

void expect_same_bits(const Memory& first, const Memory& second) {
  if (std::memcmp(first.loss.get(), second.loss.get(), 8) != 0) fail("another loss on other threads");
  for (std::size_t i = 0; i < first.gradients.size(); ++i) {
    if (!first.gradients[i].same_bits(second.gradients[i])) fail("another gradient on other threads");
  }
}

// Evaluation on one thread, training on several: the same bits, and what the definitions say.
void check(Problem& problem) {
  ++calls;
  Memory alone(problem), memory(problem);
  geco::cpu::lagrangian(alone.call(problem, nullptr, 1));
  geco::cpu::lagrangian(memory.call(problem, &kUpdate, kThreads));
  expect_same_bits(alone, memory);

  if (problem.expanded_target) {
    Array& target = problem.targets[0];
    const std::int64_t of_example = target.elements() / target.tensor().sizes[0];
    for (std::int64_t i = of_example; i < target.elements(); ++i) target.set(i, target.get(i % of_example));
  }
  std::vector<naive::Pair> pairs;
  for (std::size_t i = 0; i < problem.predictions.size(); ++i) {
    pairs.emplace_back(problem.predictions[i], problem.targets[i]);
  }
  if (problem.weights.elements() > 0) pairs[0].weigh(problem.weights);
  const double tolerance = problem.tolerance();
  const std::vector<double> constraints = expected_constraints(problem, pairs);
  const State state{memory.state.get(), problem.row_count};
  double loss = 0, size = 1;
  for (std::int64_t i = 0; i < problem.kl.elements(); ++i) loss += problem.kl.get(i) / problem.kl.elements();
  for (int l = 0; l < problem.row_count; ++l) {
    const double constraint = constraints[static_cast<std::size_t>(l)];
    expect_close("constraint " + std::to_string(l), state.at(Row::kLastConstraint, l), constraint,
                 tolerance * std::max(1.0, std::fabs(constraint)));
    loss += multiplier_of(l) * constraint;
    size += multiplier_of(l) * std::fabs(constraint);
  }
  expect_close("loss", *memory.loss, loss, tolerance * size);
  if (!problem.wants_gradients) return;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    Array gradient = Memory::gradient_of(problem, i);
    memory.gradients[i].copy_to(gradient);
    double largest = 0;
    for (double value : pairs[i].gradient) largest = std::max(largest, std::fabs(value));
    for (std::int64_t k = 0; k < gradient.elements(); ++k) {
      expect_close("gradient " + std::to_string(i) + "[" + std::to_string(k) + "]", gradient.get(k),
                   pairs[i].gradient[static_cast<std::size_t>(k)], 10 * tolerance * largest);
    }
  }
}

std::string text(const Sizes& sizes) {
  std::string result;
  for (std::int64_t size : sizes) result += " " + std::to_string(size);
  return result;
}

// One call for each pair of types in each layout, and for each pair of layouts in float32.
template <class AddTerms>
void check_types_and_layouts(const Sizes& sizes, const AddTerms& add_constraints) {
  for (DataType p : kFloats) {
    for (DataType t : kFloats) {
      for (Layout of_prediction : kLayouts) {
        for (Layout of_target : kLayouts) {
          const bool floats = p == DataType::kFloat32 && t == DataType::kFloat32;
          if (!floats && of_prediction != of_target) continue;
          scenario = "types " + std::to_string(static_cast<int>(p)) + " " + std::to_string(static_cast<int>(t)) +
                     " layouts " + std::to_string(static_cast<int>(of_prediction)) + " " +
                     std::to_string(static_cast<int>(of_target)) + " sizes" + text(sizes);
          Problem problem;
          problem.add_input(p, t, sizes, of_prediction, of_target);
          problem.wants_gradients = calls % 4 != 3;
          problem.expanded_target = calls % 5 == 4 && sizes[0] > 1;
          add_constraints(problem);
          check(problem);
        }
      }
    }
  }
}

void pixels() {
  for (const Sizes& sizes : {Sizes{2, 3, 12, 16}, Sizes{3, 3, 5, 7}, Sizes{1, 1, 1, 1}}) {
    check_types_and_layouts(sizes, [&sizes](Problem& problem) {
      const int channels = static_cast<int>(sizes[1]);
      problem.add_constraint(ConstraintKind::kSquaredError);
      if (channels > 1) problem.add_constraint(ConstraintKind::kSquaredError, {0}, channels);
      for (std::size_t k = 1; k < kErrorCount && calls % 2 == 0; ++k) problem.add_constraint(kErrors[k], {0}, channels);
      problem.kl = Array(DataType::kFloat32, {sizes[0]}).fill(random_numbers);
    });
  }
  for (const Sizes& sizes : {Sizes{2, 3, 97, 131}, Sizes{1, 1, 211, 203}, Sizes{3, 20001}, Sizes{40000}}) {
    for (DataType type : kFloats) {
      scenario = "several threads, type " + std::to_string(static_cast<int>(type)) + " sizes" + text(sizes);
      Problem problem;
      problem.add_input(type, type, sizes);
      problem.add_constraint(ConstraintKind::kSquaredError);
      check(problem);
    }
  }
  scenario = "features and a similarity";
  Problem problem;
  problem.add_input(DataType::kFloat32, DataType::kFloat32, {5, 41});
  problem.add_input(DataType::kFloat16, DataType::kFloat32, {5, 2, 3, 3}, Layout::kChannelsLast);
  problem.predictions.push_back(Array(DataType::kFloat32, {5}).fill(random_numbers));
  problem.targets.emplace_back();
  problem.add_constraint(ConstraintKind::kSquaredError, {0, 1});
  problem.add_constraint(ConstraintKind::kSimilarity, {2});
  check(problem);
}

// Weights of each channel and of all, dense and strided; what a weight of zero hides is not a number.
void weights() {
  for (const Sizes& sizes : {Sizes{2, 3, 12, 16}, Sizes{3, 3, 5, 7}, Sizes{2, 1, 211, 203}}) {
    for (Layout of_weights : kLayouts) {
      check_types_and_layouts(sizes, [&](Problem& problem) {
        const bool shared = calls % 2 == 0, per_channel = calls % 3 == 0;
        const int rows = per_channel ? static_cast<int>(sizes[1]) : 1;
        const Array &prediction = problem.predictions[0], &target = problem.targets[0];
        const bool wide = prediction.type() == DataType::kFloat64 || target.type() == DataType::kFloat64;
        problem.weights = arrays::new_weights(wide ? DataType::kFloat64 : DataType::kFloat32, sizes, shared, of_weights,
                                              random_numbers);
        const std::int64_t pixels = sizes[2] * sizes[3], of_example = sizes[1] * pixels;
        for (std::int64_t i = 0; i < prediction.elements(); ++i) {
          const std::int64_t at = shared ? i / of_example * pixels + i % pixels : i;
          if (problem.weights.get(at) != 0) continue;
          problem.predictions[0].set(i, std::numeric_limits<double>::quiet_NaN());
          if (!problem.expanded_target) problem.targets[0].set(i, std::numeric_limits<double>::infinity());
        }
        for (ConstraintKind kind : kErrors) problem.add_constraint(kind, {0}, rows);
        problem.kl = Array(DataType::kFloat32, {sizes[0]}).fill(random_numbers);
      });
    }
  }
}

void scaled_gradients() {
  for (DataType type : kFloats) {
    for (std::int64_t size : {1, 37, 70001}) {
      scenario = "gradient scaled to type " + std::to_string(static_cast<int>(type));
      ++calls;
      const Array gradient = Array(arrays::gradient_type(type), {size}, Layout::kShifted).fill(random_numbers);
      Array scaled(type, {size});
      const Exact in(gradient), out(scaled);
      geco::cpu::scale_gradients(&in.tensor(), &out.tensor(), 1, 0.375, kThreads);
      out.copy_to(scaled);
      Array expected(type, {size});
      for (std::int64_t i = 0; i < size; ++i) {
        expected.set(i, gradient.get(i) * 0.375);
        expect_close("element " + std::to_string(i), scaled.get(i), expected.get(i), 0);
      }
    }
  }
}

// Patches that fit exactly, once, with gaps; sides that leave a remainder; images of one tile and of many.
void windows() {
  for (const Sizes& sizes : {Sizes{2, 3, 11, 13}, Sizes{1, 1, 9, 37}}) {
    check_types_and_layouts(sizes, [](Problem& problem) {
      problem.add_constraint(ConstraintKind::kSquaredError);
      problem.add_windows(3, 1);
      problem.add_windows(5, 2);
    });
  }
  struct Geometry {
    Sizes sizes;
    std::int64_t patch, stride;
  };
  const Geometry geometries[] = {{{1, 1, 1, 1}, 1, 1},     {{2, 2, 4, 4}, 1, 3},     {{3, 1, 8, 8}, 8, 1},
                                 {{1, 17, 9, 10}, 3, 2},   {{1, 3, 21, 19}, 11, 1},  {{1, 2, 35, 33}, 16, 1},
                                 {{2, 2, 17, 23}, 4, 7},   {{1, 2, 20, 40}, 20, 3},  {{1, 1, 70, 66}, 64, 1},
                                 {{1, 1, 300, 4}, 4, 1},   {{1, 2, 3, 300}, 3, 5},   {{5, 1, 83, 85}, 2, 1},
                                 {{1, 1, 230, 157}, 3, 1}, {{1, 1, 17, 2100}, 3, 1}, {{1, 3, 110, 120}, 8, 4}};
  for (const Geometry& geometry : geometries) {
    for (DataType type : {DataType::kFloat32, DataType::kFloat64, DataType::kBFloat16}) {
      scenario = "patch " + std::to_string(geometry.patch) + " stride " + std::to_string(geometry.stride) + " type " +
                 std::to_string(static_cast<int>(type)) + " sizes" + text(geometry.sizes);
      Problem problem;
      problem.add_input(type, type, geometry.sizes);
      problem.add_windows(geometry.patch, geometry.stride);
      if (geometry.sizes[2] < 100) problem.add_constraint(ConstraintKind::kSquaredError);
      check(problem);
    }
  }
  scenario = "many constraints of one geometry";
  Problem problem;
  problem.add_input(DataType::kFloat32, DataType::kFloat32, {2, 2, 12, 15});
  for (double eps : {1e-4, 1e-3, 1e-2, 1e-1, 1.0}) problem.add_windows(4, 1, eps);
  check(problem);
}

Problem large() {
  Problem problem;
  problem.add_input(DataType::kFloat32, DataType::kFloat32, {2, 3, 97, 131});
  problem.add_constraint(ConstraintKind::kSquaredError);
  return problem;
}

// The kernels are told of one row more than there is.
void overrun() {
  const Problem problem = large();
  Memory memory(problem);
  LossCall call = memory.call(problem, nullptr, 1);
  for (Tensor* tensor : {&call.inputs[0].prediction, &call.inputs[0].target, &call.inputs[0].gradient}) {
    ++tensor->sizes[0];
  }
  geco::cpu::lagrangian(call);
}

// Each channel's gradient begins in the second row of that before.
void race() {
  const Problem problem = large();
  Memory memory(problem);
  LossCall call = memory.call(problem, nullptr, kThreads);
  call.inputs[0].gradient.strides[1] = 131;
  geco::cpu::lagrangian(call);
}

}  // namespace

int main(int count, char** arguments) {
  const std::string what = count > 1 ? arguments[1] : "";
  if (what == "pixels") {
    pixels();
    weights();
    scaled_gradients();
  } else if (what == "windows") {
    windows();
  } else if (what == "overrun") {
    overrun();
  } else if (what == "race") {
    race();
  } else {
    std::printf("usage: run_lagrangian pixels | windows | overrun | race\n");
    return 2;
  }
  std::printf("%s: %ld calls\n", geco::cpu::kernels().instruction_set, calls);
  return 0;
}
