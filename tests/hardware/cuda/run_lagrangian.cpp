// Runs the CUDA kernels through the shim beside the C++ kernels of the CPU and compares everything they write.
// Usage: run_lagrangian all | memory | h100 | races [barrier|fence N]. Exits 1 at the first difference.

#include "odd_sizes.h"

namespace {

// One call on both sides, twice on the device's: the same bits, and one launch each.
void compare_call(const Problem& problem, const MultiplierUpdate* update, std::vector<double>& block,
                  Layout gradient_layout = Layout::kContiguous) {
  Outputs expected(problem, block, gradient_layout), got(problem, block, gradient_layout), again = got;
  geco::cpu::lagrangian(expected.call(problem, update));
  std::vector<double> workspace;
  const Place here = place(problem, workspace);
  const long before = shim::launches;
  geco::cuda::lagrangian(got.call(problem, update), here);
  if (shim::launches != before + 1) fail("expected one launch");
  expect_zero_tickets(workspace);
  geco::cuda::lagrangian(again.call(problem, update), here);
  expect_same(got, expected, problem.row_count, problem.tolerance());
  if (std::memcmp(&got.loss, &again.loss, 8) != 0 ||
      std::memcmp(got.block.data(), again.block.data(), got.block.size() * 8) != 0) {
    fail("two runs differ");
  }
  block = expected.block;
}

// RE on images: every pair of types, every pair of layouts, sizes that fit vectors and sizes that do not.
void reconstruction_errors() {
  const Layout layouts[] = {Layout::kContiguous, Layout::kChannelsLast, Layout::kReversed, Layout::kShifted,
                            Layout::kWider};
  for (const arrays::Sizes& sizes :
       {arrays::Sizes{2, 3, 12, 16}, arrays::Sizes{3, 3, 5, 7}, arrays::Sizes{2, 1, 1, 1}}) {
    for (DataType p : kFloats) {
      for (DataType t : kFloats) {
        for (Layout of_prediction : layouts) {
          for (Layout of_target : layouts) {
            const bool plain = of_prediction == Layout::kContiguous && of_target == Layout::kContiguous;
            if (p != DataType::kFloat32 && t != p && !plain) continue;
            for (int rows : {1, static_cast<int>(sizes[1])}) {
              scenario = "RE of types " + std::to_string(static_cast<int>(p)) + std::to_string(static_cast<int>(t)) +
                         " layouts " + std::to_string(static_cast<int>(of_prediction)) +
                         std::to_string(static_cast<int>(of_target)) + " size " + std::to_string(sizes[2]) + " rows " +
                         std::to_string(rows);
              Problem problem;
              problem.batch = sizes[0];
              problem.image_elements = sizes[1] * sizes[2] * sizes[3];
              const int image = problem.input(Array(p, sizes, of_prediction), Array(t, sizes, of_target));
              problem.add(ConstraintKind::kSquaredError, {image}, rows);
              if (rows > 1 && plain) {  // two constraints share the pass
                problem.add(ConstraintKind::kSquaredError, {image}, 1, false);
              }
              problem.fill();
              problem.wants_gradients = (rows + static_cast<int>(of_target)) % 4 != 0;
              const MultiplierUpdate update = update_rule();
              std::vector<double> block = new_block(problem.row_count);
              const bool dense = of_prediction == Layout::kChannelsLast || of_prediction == Layout::kReversed;
              compare_call(problem, &update, block, dense ? of_prediction : Layout::kContiguous);
            }
          }
        }
      }
    }
  }
}

// Several tiles to a block, in each mode of unrolling.
void large_images() {
  for (DataType p : kFloats) {
    for (std::int64_t width : {64, 255}) {
      scenario = "large image of type " + std::to_string(static_cast<int>(p));
      Problem problem;
      problem.batch = 4;
      problem.image_elements = 64 * width;
      const int image = problem.input(Array(p, {4, 1, 64, width}), Array(p, {4, 1, 64, width}));
      problem.add(kErrors[width == 64 ? 0 : kErrorCount - 1], {image});
      problem.fill();
      const MultiplierUpdate update = update_rule();
      std::vector<double> block = new_block(1);
      compare_call(problem, &update, block);
    }
  }
}

// Weighted errors of images: dense and strided weights, of each channel and of all, in vectors and in tiles. What a
// weight of zero hides is not a number.
void weights() {
  const Layout layouts[] = {Layout::kContiguous, Layout::kChannelsLast, Layout::kShifted, Layout::kWider};
  int calls = 0;
  for (const arrays::Sizes& sizes : {arrays::Sizes{2, 3, 12, 16}, arrays::Sizes{3, 3, 5, 7},
                                     arrays::Sizes{2, 1, 64, 256}, arrays::Sizes{2, 3, 64, 68}}) {
    for (const auto& [p, t] : {std::pair(DataType::kFloat32, DataType::kFloat32),
                               {DataType::kFloat64, DataType::kFloat64},
                               {DataType::kFloat16, DataType::kFloat32},
                               {DataType::kBFloat16, DataType::kBFloat16},
                               {DataType::kFloat32, DataType::kFloat64}}) {
      for (Layout layout : layouts) {
        for (Layout of_weights : layouts) {
          for (bool shared : {false, true}) {
            const bool others = ++calls % 2 == 0, per_channel = calls % 3 == 0;
            scenario = "weights of types " + std::to_string(static_cast<int>(p)) + std::to_string(static_cast<int>(t)) +
                       " layouts " + std::to_string(static_cast<int>(layout)) +
                       std::to_string(static_cast<int>(of_weights)) + " size " + std::to_string(sizes[3]) + " shared " +
                       std::to_string(shared);
            Problem problem;
            problem.batch = sizes[0];
            problem.image_elements = sizes[1] * sizes[2] * sizes[3];
            const int image = problem.input(Array(p, sizes, layout), Array(t, sizes, layout));
            const int rows = per_channel ? static_cast<int>(sizes[1]) : 1;
            problem.add(ConstraintKind::kSquaredError, {image}, rows);
            for (std::size_t k = 1; k < kErrorCount && others; ++k) problem.add(kErrors[k], {image}, rows);
            problem.kl = Array(DataType::kFloat32, {sizes[0]});
            problem.fill();
            const bool wide = p == DataType::kFloat64 || t == DataType::kFloat64;
            const DataType type = wide ? DataType::kFloat64 : DataType::kFloat32;
            problem.weights = {arrays::new_weights(type, sizes, shared, of_weights, random_numbers)};
            const std::int64_t pixels = sizes[2] * sizes[3], of_example = problem.image_elements;
            for (std::int64_t i = 0; i < problem.predictions[0].elements(); ++i) {
              const std::int64_t at = shared ? i / of_example * pixels + i % pixels : i;
              if (problem.weights[0].get(at) == 0)
                problem.predictions[0].set(i, kNaN), problem.targets[0].set(i, kInfinity);
            }
            problem.wants_gradients = calls % 5 != 4;
            const MultiplierUpdate update = update_rule();
            std::vector<double> block = new_block(problem.row_count);
            compare_call(problem, &update, block, layout == Layout::kChannelsLast ? layout : Layout::kContiguous);
            if (!std::isfinite(block[0])) fail("what is hidden shows");
          }
        }
      }
    }
  }
  scenario = "several weighted inputs";
  Problem problem;
  problem.batch = 2;
  problem.image_elements = 3 * 8 * 12;
  const arrays::Sizes sizes{2, 3, 8, 12};
  for (int k = 0; k < geco::cuda::kMaxWeights; ++k) {
    problem.input(Array(DataType::kFloat32, sizes), Array(DataType::kFloat32, sizes));
    problem.add(kErrors[k % kErrorCount], {k}, k == 2 ? 3 : 1, k != 3);
    problem.weights.push_back(
        arrays::new_weights(DataType::kFloat32, sizes, k == 1, Layout::kContiguous, random_numbers));
  }
  problem.fill();
  const MultiplierUpdate update = update_rule();
  std::vector<double> block = new_block(problem.row_count);
  compare_call(problem, &update, block);
}

// Every kind of constraint in one call.
Problem everything(DataType type, bool kl_of_examples, bool others = true) {
  Problem problem;
  problem.batch = 5;
  problem.image_elements = 3 * 6 * 8;
  const int image = problem.input(Array(type, {5, 3, 6, 8}), Array(DataType::kFloat32, {5, 3, 6, 8}));
  const int features = problem.input(Array(type, {5, 40}), Array(type, {5, 40}));
  const int map = problem.input(Array(type, {5, 2, 3, 3}, Layout::kChannelsLast), Array(type, {5, 2, 3, 3}));
  const int similarities = problem.input(Array(type, {5}, Layout::kReversed), Array());
  const int similarity = problem.input(Array(type, {}), Array());
  const int scalars = problem.input(Array(type, {5}), Array());
  const int scalar = problem.input(Array(type, {}), Array());
  problem.add(ConstraintKind::kSquaredError, {image}, 3);
  problem.add(ConstraintKind::kSquaredError, {features, map});
  problem.add(ConstraintKind::kSimilarity, {similarities});
  problem.add(ConstraintKind::kSimilarity, {similarity});
  problem.add(ConstraintKind::kScalar, {scalars});
  problem.add(ConstraintKind::kScalar, {scalar});
  problem.add(ConstraintKind::kSquaredError, {image}, 1, false);
  for (std::size_t k = 1; k < kErrorCount && others; ++k) {
    problem.add(kErrors[k], {image}, 3);
    problem.add(kErrors[k], {features, map});
  }
  problem.kl = kl_of_examples ? Array(DataType::kFloat32, {5}) : Array(type, {});
  problem.fill();
  return problem;
}

void all_constraints() {
  for (DataType type : kFloats) {
    for (bool kl_of_examples : {false, true}) {
      scenario = "all constraints of type " + std::to_string(static_cast<int>(type));
      Problem problem = everything(type, kl_of_examples);
      std::vector<double> block = new_block(problem.row_count);
      const MultiplierUpdate update = update_rule();
      compare_call(problem, &update, block);
      const std::vector<double> before = block;
      compare_call(problem, nullptr, block);  // evaluation
      if (std::memcmp(before.data(), block.data(), before.size() * 8) != 0) fail("evaluation moved the state");
      problem.wants_gradients = false;
      compare_call(problem, &update, block);
    }
  }
}

// A few numbers of each.
void many_examples(std::int64_t batch) {
  scenario = "many examples";
  Problem problem;
  problem.batch = batch;
  problem.image_elements = 3;
  const arrays::Sizes sizes{problem.batch};
  const int similarities = problem.input(Array(DataType::kFloat32, sizes), Array());
  const int scalars = problem.input(Array(DataType::kFloat32, sizes), Array());
  problem.add(ConstraintKind::kSimilarity, {similarities});
  problem.add(ConstraintKind::kScalar, {scalars});
  problem.kl = Array(DataType::kFloat32, sizes);
  problem.fill();
  const MultiplierUpdate update = update_rule();
  std::vector<double> block = new_block(problem.row_count);
  compare_call(problem, &update, block);
}

// The state machine over many calls, some of them not finite.
void many_steps() {
  for (Violation violation : {Violation::kLog, Violation::kRelative, Violation::kRaw}) {
    for (std::int64_t accumulation_steps : {1, 3}) {
      const MultiplierUpdate update = update_rule(violation, accumulation_steps);
      Problem problem = everything(DataType::kFloat32, true);
      std::vector<double> block = new_block(problem.row_count);
      for (int step = 0; step < 24; ++step) {
        scenario = "step " + std::to_string(step) + " of violation " + std::to_string(static_cast<int>(violation));
        problem.fill();
        if (step == 0 || step == 9) problem.kl.set(2, kNaN);
        if (step == 5) problem.predictions[0].set(7, kInfinity);
        if (step == 11) problem.predictions[3].set(1, kInfinity);  // a similarity
        if (step >= 15 && step < 18) problem.predictions[4].set(0, kNaN);
        compare_call(problem, &update, block);
      }
    }
  }
}

void several_processes() {
  scenario = "several processes";
  Problem problem = everything(DataType::kFloat32, true);
  const MultiplierUpdate update = update_rule();
  std::vector<double> block = new_block(problem.row_count);
  for (int step = 0; step < 6; ++step) {
    problem.fill();
    if (step == 3) problem.kl.set(0, kInfinity);
    Outputs expected(problem, block, Layout::kContiguous), got(problem, block, Layout::kContiguous);
    std::vector<double> workspace;
    const Place here = place(problem, workspace);
    geco::cpu::constraint_sums(expected.call(problem, nullptr), expected.sums.data());
    geco::cuda::constraint_sums(got.call(problem, nullptr), here, got.sums.data());
    for (std::size_t i = 0; i < expected.sums.size(); ++i) expect_close("sum", got.sums[i], expected.sums[i], 1e-5);
    for (double& sum : expected.sums) sum *= 3;  // three processes that saw the same
    for (double& sum : got.sums) sum *= 3;
    geco::cpu::update_from_sums(expected.call(problem, &update), expected.sums.data(), 3, &expected.factor);
    geco::cuda::update_from_sums(got.call(problem, &update), here, got.sums.data(), 3, &got.factor);
    expect_close("gradient factor", got.factor, expected.factor, 1e-15);
    expect_same(got, expected, problem.row_count, problem.tolerance());
    block = expected.block;
  }
}

void scaled_gradients(std::int64_t largest) {
  const std::pair<std::int64_t, std::int64_t> shifts[] = {{0, 0}, {1, 1}, {0, 1}, {3, 0}, {2, 2}};
  for (DataType out_type : kFloats) {
    for (double factor : {1.0, 0.375}) {
      for (const auto& [of_gradient, of_output] : shifts) {
        scenario = "gradients scaled to type " + std::to_string(static_cast<int>(out_type)) + " shifts " +
                   std::to_string(of_gradient) + std::to_string(of_output);
        std::vector<Array> gradients, outputs;
        const Layout layout = Layout::kContiguous;
        for (std::int64_t size : {std::int64_t{1}, std::int64_t{37}, largest}) {
          gradients.push_back(Array(arrays::gradient_type(out_type), {size}, layout, of_gradient).fill(random_numbers));
          outputs.emplace_back(out_type, arrays::Sizes{size}, layout, of_output);
        }
        const std::vector<Array> unscaled = gradients;
        const bool in_place = out_type == gradients[0].type() && of_gradient == of_output && of_gradient < 2;
        std::vector<Tensor> in, out;
        for (std::size_t i = 0; i < gradients.size(); ++i) {
          in.push_back(gradients[i].tensor());
          out.push_back(in_place ? gradients[i].tensor() : outputs[i].tensor());
        }
        Array scalar(in_place ? DataType::kFloat64 : DataType::kFloat32, {});
        scalar.set(0, factor);
        const long before = shim::launches;
        geco::cuda::scale_gradients(in.data(), out.data(), 3, scalar.tensor(), {0, nullptr});
        if (shim::launches != before + 1) fail("expected one launch");
        for (std::size_t i = 0; i < gradients.size(); ++i) {
          Array expected(out_type, {unscaled[i].elements()});
          for (std::int64_t k = 0; k < expected.elements(); ++k) expected.set(k, unscaled[i].get(k) * factor);
          expect_close("scaled", in_place ? gradients[i] : outputs[i], expected, 1e-7);
        }
      }
    }
  }
}

// Every kind of work in one launch of several blocks: what ThreadSanitizer is to see. Where something was left out, one
// launch is enough.
void races(bool broken) {
  scenario = "races";
  Problem problem = everything(DataType::kFloat32, true);
  const MultiplierUpdate update = update_rule();
  Outputs outputs(problem, new_block(problem.row_count), Layout::kContiguous);
  std::vector<double> workspace;
  const Place here = place(problem, workspace);
  geco::cuda::lagrangian(outputs.call(problem, &update), here);
  if (broken) return;
  geco::cuda::lagrangian(outputs.call(problem, &update), here);
  geco::cuda::constraint_sums(outputs.call(problem, nullptr), here, outputs.sums.data());
  geco::cuda::update_from_sums(outputs.call(problem, &update), here, outputs.sums.data(), 1, &outputs.factor);
}

// The plan of an H100, few blocks at a time: four waves of them, several elements of a thread in flight.
void large_device() {
  shim::settings.multiprocessors = 132;
  shim::settings.l2_bytes = 50 << 20;
  shim::settings.blocks_in_flight = 8;
  const odd_sizes::Operand dense{}, channels_last{DataType::kBFloat16, Layout::kChannelsLast};
  odd_sizes::compare({4, 3, 256, 340}, dense, dense, dense);
  odd_sizes::compare({4, 3, 128, 340}, channels_last, dense, channels_last);
  odd_sizes::compare({2, 3, 129, 135}, dense, {DataType::kFloat32, Layout::kCropped}, dense, true);
  scenario = "all constraints on a large device";
  const MultiplierUpdate update = update_rule();
  const Problem problem = everything(DataType::kFloat32, true);
  std::vector<double> block = new_block(problem.row_count);
  compare_call(problem, &update, block);
  weights();
  scaled_gradients(20001);
}

}  // namespace

int main(int count, char** arguments) {
  const std::string what = count > 1 ? arguments[1] : "all";
  if (what == "races") {
    if (count > 3) {
      const int which = std::atoi(arguments[3]);
      (std::strcmp(arguments[2], "barrier") == 0 ? shim::settings.drop_barrier : shim::settings.drop_fence) = which;
    }
    races(count > 3);
  } else if (what == "h100") {
    large_device();
  } else {
    const std::int64_t many = what == "all" ? 70001 : 3001;
    reconstruction_errors();
    large_images();
    weights();
    all_constraints();
    many_examples(many);
    if (what == "all") many_steps();
    several_processes();
    scaled_gradients(3000);
    odd_sizes::all(many);
  }
  std::printf("%ld launches\n", shim::launches);
  return 0;
}
