// Every kernel that is compiled for patches of certain sizes, and what all kernels with windows owe a dark part of an
// image that lies beside a bright one.
#pragma once

#include "cuda/plan.h"
#include "windowed_problem.h"

inline geco::cuda::DeviceSize device_size() {
  const auto& settings = shim::settings;
  return {settings.multiprocessors, settings.l2_bytes, settings.shared_bytes, settings.shared_bytes_of_block};
}

inline geco::cuda::Plan plan_of(const Problem& problem, Layout layout = Layout::kContiguous) {
  Outputs outputs(problem, new_block(problem.row_count), layout);
  return geco::cuda::plan_of(outputs.call(problem, nullptr), geco::cuda::Outcome::kSums, device_size());
}

inline void expect_kernel(const Problem& problem, int size, int smaller, Layout layout = Layout::kContiguous) {
  const geco::cuda::WindowKernel kernel = plan_of(problem, layout).strips.kernel;
  if (kernel.size == size && kernel.smaller == smaller) return;
  fail("planned for the kernel of size " + std::to_string(kernel.size) + " and " + std::to_string(kernel.smaller));
}

// Widths: of several images to a warp, with lanes to spare, of one, and of several strips.
inline void kernels_of_one_size(bool all) {
  struct Example {
    DataType prediction, target;
    std::int64_t channels;
    bool per_channel;
    Layout layout;
  };
  const DataType kF32 = DataType::kFloat32, kF16 = DataType::kFloat16, kBF16 = DataType::kBFloat16;
  const std::vector<Example> examples = {
      {kF32, kF32, 3, false, Layout::kContiguous}, {kF32, kF32, 1, false, Layout::kContiguous},
      {kF32, kF32, 2, true, Layout::kContiguous},  {kF32, kF32, 3, false, Layout::kChannelsLast},
      {kF16, kF32, 3, false, Layout::kContiguous}, {kBF16, kBF16, 1, false, Layout::kContiguous},
      {kF32, kBF16, 3, true, Layout::kContiguous}};
  for (int size : {4, 8, 11, 16}) {
    for (const Example& e : examples) {
      for (std::int64_t width : {size < 16 ? 12 : 16, 28, 156}) {
        if (!all && width == 156 && e.channels == 3) continue;
        const std::int64_t height = size + (width == 28 ? 9 : 4), batch = width < 20 ? 5 : 1;
        const bool both = width == 28, mixed = e.prediction != kF32 || e.target != kF32;
        scenario = "kernel of size " + std::to_string(size) + " width " + std::to_string(width) + " types " +
                   std::to_string(static_cast<int>(e.prediction)) + std::to_string(static_cast<int>(e.target)) +
                   " channels " + std::to_string(e.channels) + (e.per_channel ? " per channel" : "") + " layout " +
                   std::to_string(static_cast<int>(e.layout));
        Problem problem = images({batch, e.channels, height, width}, e.prediction, e.target, e.layout, e.layout);
        add_windowed(problem, ConstraintKind::kPatchCorrelation, size, both ? 3 : 1, e.per_channel);
        if (both) add_windowed(problem, ConstraintKind::kLocalStatistics, size, 3, e.per_channel);
        if (both && (e.per_channel || e.channels == 1)) {
          add_windowed(problem, ConstraintKind::kStructuralSimilarity, size, 3, true);
        }
        problem.add(ConstraintKind::kSquaredError, {0}, both && !e.per_channel ? static_cast<int>(e.channels) : 1);
        expect_kernel(problem, size, 0, e.layout);
        compare_sums(problem, {mixed ? 1e-7 : 1e-6, 1e-5}, e.layout);
      }
    }
  }
}

// Structural similarity alone: one channel at a time, in the kernels for one channel.
inline void similarity_of_one_size() {
  for (int size : {4, 8, 11, 16}) {
    for (std::int64_t channels : {1, 3}) {
      for (std::int64_t width : {16, 28, 156}) {
        scenario = "structural similarity of size " + std::to_string(size) + " width " + std::to_string(width) +
                   " channels " + std::to_string(channels);
        Problem problem = images({2, channels, size + 5, width});
        add_windowed(problem, ConstraintKind::kStructuralSimilarity, size, 1, true, 1e-4);
        if (width == 28) problem.add(ConstraintKind::kSquaredError, {0});
        expect_kernel(problem, size, 0);
        compare_sums(problem);
      }
    }
  }
}

inline void kernels_of_two_sizes() {
  for (std::int64_t channels : {1, 3}) {
    for (std::int64_t width : {9, 32, 50}) {
      scenario = "patches of 4 and 8, width " + std::to_string(width) + " channels " + std::to_string(channels);
      Problem problem = images({3, channels, 13, width});
      add_windowed(problem, ConstraintKind::kPatchCorrelation, 8);
      add_windowed(problem, ConstraintKind::kLocalStatistics, 8);
      add_windowed(problem, ConstraintKind::kPatchCorrelation, 4, 2);
      problem.add(ConstraintKind::kSquaredError, {0}, static_cast<int>(channels));
      expect_kernel(problem, 8, 4);
      compare_sums(problem);
      scenario += ", patches of 4 of two kinds";
      add_windowed(problem, ConstraintKind::kLocalStatistics, 4, 2, false, 1e-2);
      compare_sums(problem);
    }
  }
}

// An image of height x width pixels is bright from a row or a column on. The gradient of the pixels all of whose
// patches lie in one part is as good as if the other part were not there: what is measured is its error by its own
// norm.
inline void one_edge(int size, ConstraintKind kind, bool across, std::int64_t edge, double brightness, double eps,
                     std::int64_t height, std::int64_t width, int stride = 1) {
  scenario = "patches of " + std::to_string(size) + " stride " + std::to_string(stride) + " kind " +
             std::to_string(static_cast<int>(kind)) + (across ? " edge in column " : " edge in row ") +
             std::to_string(edge) + " brightness " + std::to_string(brightness) + " eps " + std::to_string(eps);
  Problem problem = images({1, 1, height, width});
  const auto noise = [] { return static_cast<double>(random_numbers() % 1000) / 1000 - 0.5; };
  const auto place_of = [&](std::int64_t i) { return across ? i % width : i / width; };
  for (std::int64_t i = 0; i < height * width; ++i) {
    const double level = place_of(i) >= edge ? brightness : 0.0;
    problem.targets[0].set(i, level + noise());
    problem.predictions[0].set(i, problem.targets[0].get(i) + noise());
  }
  add_windowed(problem, kind, size, stride, false, eps);
  const std::vector<double> block = new_block(1);
  const Outputs expected = expected_sums(problem, block, Layout::kContiguous);
  Outputs got(problem, block, Layout::kContiguous);
  std::vector<double> workspace;
  const Place here = place(problem, workspace);
  geco::cuda::constraint_sums(got.call(problem, nullptr), here, got.sums.data());
  const std::int64_t length = across ? width : height;
  for (const bool bright : {false, true}) {
    double distance = 0, size_of_part = 0;
    for (std::int64_t i = 0; i < height * width; ++i) {
      const std::int64_t at = place_of(i);
      const std::int64_t first = std::max<std::int64_t>(at - size + stride, 0) / stride * stride;
      const std::int64_t last = std::min(at, length - size) / stride * stride + size - 1;
      if (first > at || last < at) continue;  // no patch covers it
      if (bright ? first < edge : last >= edge) continue;
      const double e = expected.gradients[0].get(i);
      distance += std::pow(got.gradients[0].get(i) - e, 2);
      size_of_part += e * e;
    }
    if (std::sqrt(distance) <= 1e-4 * std::sqrt(size_of_part)) continue;
    char text[100];
    std::snprintf(text, sizeof text, "the gradient of the %s part is %.2e of its norm off", bright ? "bright" : "dark",
                  std::sqrt(distance / size_of_part));
    fail(text);
  }
}

inline void dark_beside_bright() {
  for (int size : {1, 3, 4, 5, 8, 9, 11, 16}) {
    for (ConstraintKind kind :
         {ConstraintKind::kPatchCorrelation, ConstraintKind::kLocalStatistics, ConstraintKind::kStructuralSimilarity}) {
      if (size == 1 && kind == ConstraintKind::kPatchCorrelation) continue;  // no gradient
      const bool fixed = size == 4 || size == 8 || size == 11 || size == 16;
      for (std::int64_t edge = 18; edge < 23; ++edge) {
        one_edge(size, kind, true, edge, 1e6, 1e-3, size + 3, fixed ? 44 : 41);
        one_edge(size, kind, false, edge, 1e6, 1e-3, 41, 20);
      }
      one_edge(size, kind, true, 96, 1e6, 1e-3, size + 2, 168);
      for (const int stride : {2, 3, size}) {
        one_edge(size, kind, true, 19, 1e6, 1e-3, 2 * size + 1, 44, stride);
        one_edge(size, kind, false, size + 1, 1e6, 1e-3, 3 * size + 4, 20, stride);
      }
      one_edge(size, kind, true, 20, 1e2, 1e-3, size + 3, 43);
      one_edge(size, kind, true, 21, 1e6, 1e7, size + 3, 44);
    }
  }
}
