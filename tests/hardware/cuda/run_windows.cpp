// Runs windowed constraints through the shim and compares them with their definition.
// Usage: run_windows all | memory | h100 | races [barrier|fence N]. Exits 1 at the first difference.

#include <functional>

#include "window_kernel_runs.h"

namespace {

std::string name(DataType type) { return std::to_string(static_cast<int>(type)); }
std::string name(Layout layout) { return std::to_string(static_cast<int>(layout)); }

void sizes_and_strides() {
  struct Example {
    arrays::Sizes sizes;
    std::int64_t patch, stride;
    bool per_channel;
  };
  for (const Example& e : std::vector<Example>{{{2, 3, 9, 13}, 1, 1, false},
                                               {{1, 1, 9, 13}, 2, 1, false},
                                               {{2, 3, 9, 13}, 3, 2, true},
                                               {{1, 3, 9, 40}, 5, 1, false},
                                               {{1, 3, 21, 70}, 8, 3, false},
                                               {{1, 1, 30, 150}, 8, 1, false},
                                               {{1, 2, 20, 136}, 8, 8, true},
                                               {{1, 17, 14, 14}, 11, 1, false},
                                               {{1, 17, 6, 5}, 3, 1, true},
                                               {{3, 2, 7, 7}, 7, 1, false},
                                               {{1, 1, 40, 40}, 40, 1, false},
                                               {{1, 1, 33, 140}, 32, 1, false},
                                               {{2, 1, 19, 23}, 2, 8, false},
                                               {{2, 3, 1, 1}, 1, 1, true},
                                               {{2, 2, 16, 16}, 8, 1, false},
                                               {{2, 4, 16, 16}, 11, 1, false}}) {
    scenario = "patch " + std::to_string(e.patch) + " stride " + std::to_string(e.stride) + " width " +
               std::to_string(e.sizes[3]) + (e.per_channel ? " per channel" : "");
    Problem problem = images(e.sizes);
    add_both(problem, e.patch, e.stride, e.per_channel);
    compare_sums(problem);
    add_windowed(problem, ConstraintKind::kStructuralSimilarity, e.patch, e.stride, true, 1e-4);
    compare_sums(problem);
  }
}

void types_and_layouts() {
  const Layout layouts[] = {Layout::kContiguous, Layout::kChannelsLast, Layout::kReversed, Layout::kShifted,
                            Layout::kWider};
  for (DataType p : kFloats) {
    for (DataType t : kFloats) {
      for (Layout layout : layouts) {
        if (layout != Layout::kContiguous && p != t) continue;
        for (std::int64_t width : {9, 36, 68}) {
          if (width > 9 && p != DataType::kFloat32 && layout != Layout::kContiguous) continue;
          scenario = "types " + name(p) + name(t) + " layout " + name(layout) + " width " + std::to_string(width);
          Problem problem =
              images({2, 2, 6, width}, p, t, layout, layout == Layout::kWider ? Layout::kShifted : layout);
          add_windowed(problem, ConstraintKind::kPatchCorrelation, 3);
          problem.add(ConstraintKind::kSquaredError, {0});
          const bool is_double = p == DataType::kFloat64;
          const Tolerance mixed{1e-7, is_double ? 1e-9 : 1e-5};
          const bool dense = layout == Layout::kChannelsLast || layout == Layout::kReversed;
          compare_sums(problem, is_double && t == p ? kDouble : mixed, dense ? layout : Layout::kContiguous);
        }
      }
    }
  }
}

// One channel is all channels: patches of 4 of each channel, beside patches of 8 of all of them.
void one_channel() {
  scenario = "one channel";
  Problem problem = images({2, 1, 16, 16});
  add_windowed(problem, ConstraintKind::kLocalStatistics, 8);
  add_windowed(problem, ConstraintKind::kPatchCorrelation, 4, 1, true);
  expect_kernel(problem, 8, 4);
  compare_sums(problem);
}

// A pixel that is no number in the first column leaves the gradients of the examples beside it in a warp as they are.
// (In the last column of a lane it does not yet: its reference reaches the next example, times a coefficient of zero.)
// Examples lie side by side in a warp: one with a pixel that is NaN or infinite, in any column of a lane, leaves the
// gradients of the others as they are without it.
void one_example_is_not_finite() {
  for (int size : {4, 5, 8, 11, 16}) {
    for (int column = 0; column < 16; ++column) {
      for (const bool in_target : {false, true}) {
        scenario = "a pixel that is no number, size " + std::to_string(size) + ", column " + std::to_string(column);
        Problem problem = images({3, 1, 16, 16});
        Array& image = in_target ? problem.targets[0] : problem.predictions[0];
        image.set(256 + 7 * 16 + column, column % 2 ? kNaN : std::numeric_limits<double>::infinity());
        add_windowed(problem, ConstraintKind::kPatchCorrelation, size);
        Outputs got(problem, new_block(1), Layout::kContiguous);
        std::vector<double> workspace;
        geco::cuda::constraint_sums(got.call(problem, nullptr), place(problem, workspace), got.sums.data());
        for (std::int64_t i = 0; i < 3 * 256; ++i) {
          if (i / 256 != 1 && !std::isfinite(got.gradients[0].get(i))) fail("gradient " + std::to_string(i));
        }
        if (std::isfinite(got.sums[0])) fail("the constraint does not show it");
      }
    }
  }
}

// Every kind of constraint in one call: windows of several sizes, joint and per channel, beside all others.
Problem everything(DataType type, bool per_channel, std::int64_t channels = 3) {
  Problem problem = images({3, channels, 10, 12}, type);
  const int features = problem.input(Array(type, {3, 40}), Array(type, {3, 40}));
  const int similarities = problem.input(Array(type, {3}), Array());
  const int scalars = problem.input(Array(type, {3}), Array());
  add_windowed(problem, ConstraintKind::kPatchCorrelation, 4);
  problem.add(ConstraintKind::kSquaredError, {0}, static_cast<int>(channels));
  problem.add(ConstraintKind::kSquaredError, {features});
  add_windowed(problem, ConstraintKind::kLocalStatistics, 3, 2);
  problem.add(ConstraintKind::kSimilarity, {similarities});
  add_windowed(problem, ConstraintKind::kLocalStatistics, 4, 1, false, 1e-2);
  problem.add(ConstraintKind::kScalar, {scalars});
  problem.add(ConstraintKind::kSquaredError, {0}, 1, false);
  for (std::size_t k = 1; k < kErrorCount; ++k)
    problem.add(kErrors[k], {0}, per_channel ? 1 : static_cast<int>(channels));
  if (per_channel) add_windowed(problem, ConstraintKind::kPatchCorrelation, 5, 1, true);
  if (per_channel) add_windowed(problem, ConstraintKind::kStructuralSimilarity, 5, 1, true, 1e-4);
  problem.kl = Array(DataType::kFloat32, {3});
  problem.fill();
  return problem;
}

void all_constraints() {
  for (DataType type : {DataType::kFloat32, DataType::kFloat64, DataType::kBFloat16}) {
    for (bool per_channel : {false, true}) {
      scenario = "all constraints of type " + name(type) + (per_channel ? " some per channel" : "");
      Problem problem = everything(type, per_channel, type == DataType::kBFloat16 ? 9 : 3);
      compare_sums(problem, {1e-6, 1e-5});
      problem.wants_gradients = false;
      compare_sums(problem);
    }
  }
}

// Training moves the state by what the sums are, evaluation does not, and a pixel that is no number skips the step.
void steps() {
  Problem problem = everything(DataType::kFloat32, true);
  std::vector<double> block = new_block(problem.row_count);
  for (int step = 0; step < 4; ++step) {
    scenario = "step " + std::to_string(step);
    problem.fill();
    if (step == 2) problem.predictions[0].set(77, kNaN);
    const MultiplierUpdate update = update_rule();
    Outputs expected = expected_sums(problem, block, Layout::kContiguous);
    Outputs got(problem, block, Layout::kContiguous), looked = got;
    std::vector<double> workspace;
    const Place here = place(problem, workspace);
    geco::cuda::lagrangian(looked.call(problem, nullptr), here);
    if (std::memcmp(looked.block.data(), block.data(), block.size() * 8) != 0) fail("evaluation moved the state");
    geco::cuda::lagrangian(got.call(problem, &update), here);
    geco::cpu::update_from_sums(expected.call(problem, &update), expected.sums.data(), 1, &expected.factor);
    expect_close("loss", got.loss, expected.loss, 1e-5);
    if (step == 0) expect_close("loss in evaluation", looked.loss, got.loss, 1e-12);  // the average is C_hat itself
    const std::size_t rows = static_cast<std::size_t>(static_cast<int>(Row::kCount) * problem.row_count);
    for (std::size_t i = 0; i < rows; ++i) {
      expect_close("state word " + std::to_string(i), got.block[i], expected.block[i], 1e-5);
    }
    for (std::size_t i = rows; i < block.size(); ++i) {
      if (std::memcmp(&got.block[i], &expected.block[i], 8) != 0) fail("counter " + std::to_string(i - rows));
    }
    if (step != 2) expect_gradients(got, expected, {});
    block = expected.block;
  }
}

void set_pixels(Array& array, const std::function<double(std::int64_t)>& value) {
  for (std::int64_t i = 0; i < array.elements(); ++i) array.set(i, value(i));
}

// Images on which raw sums of squares lose their digits.
void hard_images() {
  const arrays::Sizes sizes{1, 1, 24, 40};
  const auto compare = [&](const char* what, const Problem& filled, const Tolerance& tolerance) {
    for (ConstraintKind kind :
         {ConstraintKind::kPatchCorrelation, ConstraintKind::kLocalStatistics, ConstraintKind::kStructuralSimilarity}) {
      scenario = std::string(what) + " kind " + std::to_string(static_cast<int>(kind));
      Problem problem = filled;
      add_windowed(problem, kind, 8, 1, false, 1e-5);
      compare_sums(problem, tolerance);
    }
  };
  const auto noise = [](double scale) { return scale * (static_cast<double>(random_numbers() % 1000) / 1000 - 0.5); };
  Problem problem = images(sizes);
  for (Array* array : {&problem.predictions[0], &problem.targets[0]}) {
    set_pixels(*array, [&](std::int64_t i) { return (i % 40 < 20 ? 0.0 : 1.0) + noise(0.02); });
  }
  compare("half black, half white", problem, {1e-6, 5e-5});
  for (Array* array : {&problem.predictions[0], &problem.targets[0]}) {
    set_pixels(*array, [&](std::int64_t i) { return static_cast<double>(i % 40) / 40 + noise(0.02); });
  }
  compare("ramp", problem, {1e-6, 5e-5});
  for (Array* array : {&problem.predictions[0], &problem.targets[0]}) {
    set_pixels(*array, [&](std::int64_t) { return 1000.5 + noise(1); });
  }
  compare("far off", problem, {1e-3, 1e-2});
  for (Array* array : {&problem.predictions[0], &problem.targets[0]}) {
    set_pixels(*array, [&](std::int64_t) { return noise(2e6); });
  }
  compare("large", problem, {1e-5, 1e-4});
}

// Identical and flat images correlate perfectly, whatever rounding does.
void equal_images() {
  for (double value : {0.0, 0.3, 1e6}) {
    scenario = "equal images around " + std::to_string(value);
    Problem problem = images({1, 3, 12, 14});
    if (value != 0.3) set_pixels(problem.predictions[0], [&](std::int64_t) { return value; });
    problem.targets[0] = problem.predictions[0];
    add_windowed(problem, ConstraintKind::kPatchCorrelation, 3, 1, false, 1e-5);
    Outputs got(problem, new_block(1), Layout::kContiguous);
    std::vector<double> workspace;
    geco::cuda::constraint_sums(got.call(problem, nullptr), place(problem, workspace), got.sums.data());
    expect_close("correlation", 0.2 - got.sums[0], 1.0, 1e-6);
  }
}

// Strips that are few are shared out over more than half of a device, and a warp has one of them at a time.
void few_strips() {
  for (std::int64_t patch : {4, 8, 11, 16}) {
    for (std::int64_t width : {16, 32, 64, 256}) {
      scenario = "strips of width " + std::to_string(width) + ", patch " + std::to_string(patch);
      Problem problem = images({16, 3, width, width});
      add_windowed(problem, ConstraintKind::kPatchCorrelation, patch);
      Outputs outputs(problem, new_block(1), Layout::kContiguous);
      constexpr geco::cuda::DeviceSize kDevice{132, 50 << 20, 228 << 10, 227 << 10};
      const geco::cuda::Plan plan =
          geco::cuda::plan_of(outputs.call(problem, nullptr), geco::cuda::Outcome::kSums, kDevice);
      const std::int64_t strips = plan.operands[0].elements, blocks = plan.operands[0].blocks;
      if (2 * blocks <= std::min<std::int64_t>(strips, kDevice.multiprocessors)) {
        fail(std::to_string(strips) + " strips in " + std::to_string(blocks) + " blocks");
      }
    }
  }
}

// What a call loads and stores, in bytes. The gradient is written once. Pixels are read once for the windows of the
// strip they lie in, once more where their gradient is written, and once more in the halo of other strips; squared
// errors alone, 2N loads and N stores, need no such thing. One row of each strip is read for its references.
void traffic() {
  for (std::int64_t width : {32, 200}) {
    for (bool windows : {false, true}) {
      scenario = "traffic of width " + std::to_string(width) + (windows ? " with windows" : "");
      const std::int64_t channels = 3, height = 40, patch = 8;
      Problem problem = images({1, channels, height, width});
      problem.add(ConstraintKind::kSquaredError, {0});
      if (windows) add_windowed(problem, ConstraintKind::kPatchCorrelation, patch);
      Outputs got(problem, new_block(problem.row_count), Layout::kContiguous);
      std::vector<double> workspace;
      const Place here = place(problem, workspace);
      const LossCall call = got.call(problem, nullptr);
      shim::loaded_bytes = shim::stored_bytes = 0;
      geco::cuda::constraint_sums(call, here, got.sums.data());

      const std::int64_t row = 2 * 4 * channels;  // bytes of one column of both images
      std::int64_t expected = row * height * width;
      if (windows) {
        // Rows come in pairs, and a warp has loaded one more when it ends. Patches begin in an odd row of a pair, as
        // each ends in an even one; from the first patches on, pixels are loaded for gradients too.
        const geco::cuda::Strips strips = plan_of(problem).strips;
        std::int64_t rows = 0;
        for (std::int64_t first = 0; first < height; first += strips.rows) {
          const std::int64_t end = std::min<std::int64_t>(first + strips.rows, height);
          const std::int64_t first_patch = std::max<std::int64_t>(first - patch + 1, 0),
                             last_top = (end - 2) / 2 * 2 + 1;
          const std::int64_t last_pair = std::min((last_top + patch - 1) / 2, (height - 1) / 2);
          rows += 1 + 2 * (last_pair - first_patch / 2 + 1);
          rows += 2 * ((last_top - (first_patch - 1 + first_patch % 2)) / 2 + 1);
        }
        expected = row * rows * 128 * strips.across;
      }
      expect_close("bytes loaded", static_cast<double>(shim::loaded_bytes), static_cast<double>(expected), 0);
      expect_close("bytes stored", static_cast<double>(shim::stored_bytes),
                   static_cast<double>(4 * channels * height * width), 0);
    }
  }
}

void expect_refusal(const Problem& problem, bool& fits, std::int64_t patch) {
  Outputs outputs(problem, new_block(1), Layout::kContiguous);
  const geco::LossCall call = outputs.call(problem, nullptr);
  const std::string reason = geco::cuda::refuses(call, 0);
  if (reason.empty() && !fits) fail("larger than one that is refused");
  fits = reason.empty();
  if (fits) return;
  const std::string size = std::to_string(patch), bytes = std::to_string(shim::settings.shared_bytes_of_block);
  if (reason !=
      "patches of " + size + "x" + size + " pixels need more shared memory than the " + bytes + " bytes of a block") {
    fail(reason);
  }
  std::vector<double> workspace;
  try {
    geco::cuda::lagrangian(call, place(problem, workspace));
    fail("it was launched");
  } catch (const std::invalid_argument& error) {
    if (error.what() != reason) fail(error.what());
  }
}

// Patches of up to 32 pixels fit for every type and width, and none that fits is larger than one that does not. A call
// that is refused is not launched, for the same reason.
void refused_patches() {
  for (DataType type : kFloats) {
    for (std::int64_t width : {20, 40, 64, 65, 130, 1000}) {
      const std::int64_t most = std::min<std::int64_t>(width, 100);
      bool fits = true;
      for (std::int64_t patch = 1; patch <= most; ++patch) {
        scenario =
            "refused patches, type " + name(type) + ", " + std::to_string(patch) + " of " + std::to_string(width);
        Problem problem = images({1, 1, 100, width}, type, type);
        add_windowed(problem, ConstraintKind::kPatchCorrelation, patch);
        expect_refusal(problem, fits, patch);
        if (patch <= 32 && !fits) fail("it is refused");
      }
      if (width == 1000 && fits) fail("it is not refused");
    }
  }
}

// Several blocks, all with windows, of kernels for one size and for any: what ThreadSanitizer is to see.
void races(bool broken) {
  scenario = "races";
  Problem problem = images({6, 3, 10, 12});
  add_both(problem, 4);
  problem.add(ConstraintKind::kSquaredError, {0}, 3);
  expect_kernel(problem, 4, 0);
  const MultiplierUpdate update = update_rule();
  Outputs outputs(problem, new_block(problem.row_count), Layout::kContiguous);
  std::vector<double> workspace;
  const Place here = place(problem, workspace);
  geco::cuda::lagrangian(outputs.call(problem, &update), here);
  if (broken) return;
  geco::cuda::lagrangian(outputs.call(problem, &update), here);
  add_windowed(problem, ConstraintKind::kLocalStatistics, 3, 2);
  expect_kernel(problem, 0, 0);
  Outputs of_any(problem, new_block(problem.row_count), Layout::kContiguous);
  const Place there = place(problem, workspace);
  geco::cuda::lagrangian(of_any.call(problem, &update), there);
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
    shim::settings.multiprocessors = 132;
    shim::settings.l2_bytes = 50 << 20;
    shim::settings.blocks_in_flight = 8;
    kernels_of_two_sizes();
    steps();
  } else {
    const bool all = what == "all";
    kernels_of_one_size(all);
    similarity_of_one_size();
    kernels_of_two_sizes();
    if (all) dark_beside_bright();
    if (all) refused_patches();
    sizes_and_strides();
    one_channel();
    one_example_is_not_finite();
    types_and_layouts();
    all_constraints();
    steps();
    hard_images();
    equal_images();
    few_strips();
    traffic();
  }
  std::printf("%ld launches\n", shim::launches);
  return 0;
}
