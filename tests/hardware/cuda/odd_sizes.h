// Squared errors off the vector path, against their definition in float64: bases off the grid of 16 bytes, sizes around
// multiples of vectors and tiles, crops, transposed operands, very many examples, and plans of more elements than
// memory holds here.
#pragma once

#include "cuda/elementwise_plan.h"
#include "cuda/elementwise_tiles.cuh"
#include "cuda/plan.h"
#include "problem.h"

namespace odd_sizes {

struct Operand {
  DataType type = DataType::kFloat32;
  Layout layout = Layout::kContiguous;
  std::int64_t shift = 0;
};

inline std::string name(const Operand& operand) {
  return " type " + std::to_string(static_cast<int>(operand.type)) + " layout " +
         std::to_string(static_cast<int>(operand.layout)) + " shift " + std::to_string(operand.shift);
}

// Sum of squares and gradient of each channel or of all, by definition.
inline Outputs by_definition(const Problem& problem, const std::vector<double>& block) {
  Outputs expected(problem, block, Layout::kContiguous);
  const Constraint& constraint = problem.constraints[0];
  const LossCall call = expected.call(problem, nullptr);
  const Array &prediction = problem.predictions[0], &target = problem.targets[0];
  const double weight = geco::difference_weight(constraint, call.inputs[0]);
  const Tensor tensor = prediction.tensor();
  std::int64_t of_channel = 1;
  for (int d = 2; d < tensor.rank; ++d) of_channel *= tensor.sizes[d];
  std::fill(expected.sums.begin(), expected.sums.end(), 0.0);
  for (std::int64_t i = 0; i < prediction.elements(); ++i) {
    const int row = constraint.rows > 1 ? static_cast<int>(i / of_channel % tensor.sizes[1]) : 0;
    const double difference = prediction.get(i) - target.get(i);
    const double multiplier = std::exp(geco::log_multiplier(geco::scale_rule(constraint.kind), call.state, row,
                                                            geco::compared_elements(call, constraint)));
    expected.sums[static_cast<std::size_t>(row)] += weight * difference * difference;
    if (!problem.wants_gradients) continue;
    expected.gradients[0].set(i, 2 * multiplier * weight / static_cast<double>(problem.batch) * difference);
  }
  for (int row = 0; row < constraint.rows; ++row) {
    const double kappa = call.state.at(Row::kKappa, row);
    expected.sums[static_cast<std::size_t>(row)] -= static_cast<double>(problem.batch) * kappa * kappa;
  }
  expected.sums.back() = static_cast<double>(problem.batch);
  return expected;
}

// One launch, the same bits twice.
inline void compare(const arrays::Sizes& sizes, const Operand& p, const Operand& t, const Operand& g,
                    bool per_channel = false, bool wants_gradients = true) {
  scenario = "size";
  for (std::int64_t size : sizes) scenario += " " + std::to_string(size);
  scenario += "," + name(p) + "," + name(t) + ", gradient" + (wants_gradients ? name(g) : " none");
  Problem problem;
  problem.batch = sizes[0];
  problem.image_elements = 1;
  for (std::size_t d = 1; d < sizes.size(); ++d) problem.image_elements *= sizes[d];
  problem.input(Array(p.type, sizes, p.layout, p.shift), Array(t.type, sizes, t.layout, t.shift));
  problem.add(ConstraintKind::kSquaredError, {0}, per_channel ? static_cast<int>(sizes[1]) : 1);
  problem.fill();
  problem.wants_gradients = wants_gradients;
  const std::vector<double> block = new_block(problem.row_count);
  const Outputs expected = by_definition(problem, block);
  Outputs got(problem, block, g.layout, g.shift), again = got;
  std::vector<double> workspace;
  const long before = shim::launches;
  geco::cuda::constraint_sums(got.call(problem, nullptr), place(problem, workspace), got.sums.data());
  if (shim::launches != before + 1) fail("expected one launch");
  geco::cuda::constraint_sums(again.call(problem, nullptr), place(problem, workspace), again.sums.data());
  const double tolerance = p.type == DataType::kFloat64 ? 1e-12 : 1e-6;
  for (std::size_t i = 0; i < expected.sums.size(); ++i) {
    expect_close("sum", got.sums[i], expected.sums[i], tolerance);
    if (std::memcmp(&got.sums[i], &again.sums[i], 8) != 0) fail("two runs differ");
  }
  if (wants_gradients) expect_close("gradient", got.gradients[0], expected.gradients[0], tolerance);
}

// Every pair of phases, and those at which vectors begin after a head.
inline void misaligned_bases() {
  const arrays::Sizes sizes{2, 41};
  for (std::int64_t p = 0; p < 4; ++p) {
    for (std::int64_t t = 0; t < 4; ++t) {
      const Layout dense = Layout::kContiguous;
      for (std::int64_t g = 0; g < 4; ++g) {
        compare(sizes, {DataType::kFloat32, dense, p}, {DataType::kFloat32, dense, t}, {DataType::kFloat32, dense, g});
      }
      compare(sizes, {DataType::kFloat16, dense, p}, {DataType::kFloat16, dense, t}, {});
      compare(sizes, {DataType::kBFloat16, dense, p}, {DataType::kFloat32, dense, t}, {}, false, p != t);
      compare(sizes, {DataType::kFloat64, dense, p}, {DataType::kFloat64, dense, t}, {DataType::kFloat64, dense, p});
    }
    for (DataType type : {DataType::kFloat32, DataType::kFloat64, DataType::kFloat16}) {
      const Operand same{type, Layout::kContiguous, p};
      compare({2, 3, 8, 8}, same, same, same, true);
      compare({2, 3, 8, 8}, same, same, same, true, false);
      for (std::int64_t row : {8, 70, 77}) {
        const Operand rows{type, Layout::kWideRows, p};
        compare({2, 1, 5, row}, rows, rows, rows);
        compare({2, 1, 5, row}, rows, rows, rows, false, false);
        compare({2, 1, 5, row}, rows, rows, {type});
      }
    }
  }
}

inline void sizes_around_vectors() {
  const std::int64_t tile = geco::cuda::kThreads, round = 8 * tile;
  for (std::int64_t size : {std::int64_t{1}, std::int64_t{2}, std::int64_t{3}, std::int64_t{4}, std::int64_t{5},
                            std::int64_t{7}, std::int64_t{8}, std::int64_t{9}, tile - 1, tile, tile + 1, 4 * tile - 1,
                            4 * tile, 4 * tile + 1, round - 1, round + 1, 4 * round + 3, 13 * round + 5}) {
    for (DataType type : kFloats) {
      const Operand on_grid{type}, off_grid{type, Layout::kContiguous, 1};
      compare({1, size}, on_grid, on_grid, on_grid);
      compare({1, size}, off_grid, off_grid, off_grid);
      compare({1, size}, on_grid, off_grid, on_grid);
    }
  }
}

inline void crops() {
  const std::pair<DataType, DataType> types[] = {{DataType::kFloat32, DataType::kFloat32},
                                                 {DataType::kFloat16, DataType::kBFloat16},
                                                 {DataType::kFloat32, DataType::kFloat64},
                                                 {DataType::kFloat64, DataType::kFloat16}};
  for (const arrays::Sizes& sizes : {arrays::Sizes{2, 3, 5, 7}, arrays::Sizes{1, 2, 9, 70}, arrays::Sizes{3, 1, 17, 33},
                                     arrays::Sizes{5, 6, 3, 1}, arrays::Sizes{2, 2, 40, 130}}) {
    for (const auto& [p, t] : types) {
      compare(sizes, {p}, {t, Layout::kCropped}, {p});
      compare(sizes, {p, Layout::kCropped}, {t, Layout::kCropped}, {p}, sizes[1] > 1);
      compare(sizes, {p, Layout::kCropped, 1}, {t}, {p}, false, false);
      compare(sizes, {p}, {t, Layout::kWideRows}, {p});
      compare(sizes, {p}, {t, Layout::kRepeated}, {p});
    }
  }
}

inline void transposed_operands() {
  const std::pair<DataType, DataType> types[] = {{DataType::kFloat32, DataType::kFloat32},
                                                 {DataType::kBFloat16, DataType::kFloat32},
                                                 {DataType::kFloat64, DataType::kFloat32}};
  for (const arrays::Sizes& sizes : {arrays::Sizes{2, 40, 7, 9}, arrays::Sizes{3, 3, 16, 11},
                                     arrays::Sizes{1, 70, 1, 3}, arrays::Sizes{2, 8, 40, 16}}) {
    for (const auto& [p, t] : types) {
      compare(sizes, {p, Layout::kChannelsLast}, {t}, {p, Layout::kChannelsLast});
      compare(sizes, {p}, {t, Layout::kChannelsLast}, {p});
      compare(sizes, {p, Layout::kChannelsLast, 1}, {t}, {p}, true);
      compare(sizes, {p, Layout::kReversed}, {t, Layout::kChannelsLast}, {p, Layout::kReversed});
      compare(sizes, {p, Layout::kChannelsLast}, {t, Layout::kCropped}, {}, false, false);
    }
  }
}

inline void many_examples(std::int64_t batch) {
  for (DataType type : {DataType::kFloat32, DataType::kBFloat16}) {
    compare({batch, 3}, {type}, {type}, {type});
    compare({batch, 3}, {type}, {type, Layout::kCropped}, {type});
    compare({batch, 2, 1, 2}, {type, Layout::kChannelsLast}, {type}, {type, Layout::kChannelsLast}, true);
  }
}

// Two tensors that are nowhere, and the gradient of the first if one is wanted.
inline Input nowhere(const arrays::Sizes& sizes, Layout of_prediction, Layout of_target,
                     std::int64_t shift_of_prediction, std::int64_t shift_of_target, bool wants_gradient) {
  const auto tensor = [&](Layout layout, std::int64_t shift) {
    Tensor result = Array(DataType::kFloat32, arrays::Sizes(sizes.size(), 1)).tensor();
    std::vector<int> order{0, 1, 2, 3};
    if (layout == Layout::kChannelsLast) order = {0, 2, 3, 1};
    std::int64_t stride = 1;
    for (auto d = order.rbegin(); d != order.rend(); ++d) {
      result.sizes[*d] = sizes[static_cast<std::size_t>(*d)];
      result.strides[*d] = stride;
      stride *= result.sizes[*d];
    }
    result.data = reinterpret_cast<void*>(4096 + 4 * shift);
    return result;
  };
  return {tensor(of_prediction, shift_of_prediction), tensor(of_target, shift_of_target),
          wants_gradient ? tensor(of_prediction, 0) : Tensor{}};
}

inline geco::cuda::Plan plan_of(const Input& input, int rows = 1) {
  Problem problem;
  problem.add(ConstraintKind::kSquaredError, {0}, rows);
  std::vector<double> block = new_block(problem.row_count);
  LossCall call;
  call.constraints = &problem.constraints;
  call.inputs = {input};
  call.state = State{block.data(), problem.row_count};
  call.batch = input.prediction.sizes[0];
  return geco::cuda::plan_of(call, geco::cuda::Outcome::kSums, {132, 50 << 20, 228 << 10, 227 << 10});
}

// What a tile holds, by threads: where their elements lie and how many there are. Counted up to it from another one.
struct Seen {
  std::vector<geco::Offsets> first;
  std::vector<int> count;
};

inline void look_at_tile(geco::cuda::Plan plan, unsigned number, unsigned from, Seen* seen) {
  const geco::cuda::Operand& operand = plan.operands[0];
  const geco::cuda::Tiling tiling = geco::cuda::tiling_of(operand);
  geco::cuda::Tile tile = geco::cuda::tile_of(operand, tiling, from);
  geco::cuda::advance(operand, tiling, geco::cuda::tile_of(operand, tiling, number - from), tile);
  const geco::cuda::TileElements elements = geco::cuda::elements_of<geco::cuda::SquaredAlone>(operand, {}, tile);
  seen->first[threadIdx.x] = elements.first;
  seen->count[threadIdx.x] = elements.count;
}

inline Seen look_at_tile(const geco::cuda::Plan& plan, std::int64_t number, std::int64_t from) {
  Seen seen{std::vector<geco::Offsets>(geco::cuda::kThreads), std::vector<int>(geco::cuda::kThreads)};
  shim::launch(look_at_tile, 1, geco::cuda::kThreads, 0, plan, static_cast<unsigned>(number),
               static_cast<unsigned>(from), &seen);
  return seen;
}

// Whether an element of the tile lies so in all operands.
inline bool holds(const geco::cuda::Plan& plan, const Seen& seen, const geco::Offsets& at) {
  const geco::cuda::Operand& operand = plan.operands[0];
  const geco::Dimension& unrolled = geco::cuda::dimension_of(operand, operand.unrolled);
  const std::int64_t apart = std::int64_t{1} << geco::cuda::box_bits(operand, operand.unrolled);
  for (std::size_t thread = 0; thread < seen.count.size(); ++thread) {
    for (int k = 0; k < seen.count[thread]; ++k) {
      const geco::Offsets& first = seen.first[thread];
      if (first.prediction + k * apart * unrolled.prediction == at.prediction &&
          first.target + k * apart * unrolled.target == at.target &&
          first.gradient + k * apart * unrolled.gradient == at.gradient) {
        return true;
      }
    }
  }
  return false;
}

inline void expect(bool holds, const char* what) {
  if (!holds) fail(std::string("expected ") + what);
}

// Where an element lies that has these indices.
inline geco::Offsets offsets(const Input& input, const arrays::Sizes& index) {
  geco::Offsets at{0, 0, 0};
  for (std::size_t d = 0; d < index.size(); ++d) {
    at.prediction += index[d] * input.prediction.strides[d];
    at.target += index[d] * input.target.strides[d];
    at.gradient += index[d] * (input.gradient ? input.gradient : input.prediction).strides[d];
  }
  return at;
}

// Tiles hold the first element and the last one, and counting on from another tile leads to the same.
inline void expect_tiles(const arrays::Sizes& sizes, const Input& input) {
  const geco::cuda::Plan plan = odd_sizes::plan_of(input);
  const geco::cuda::Operand& operand = plan.operands[0];
  expect(operand.vectorised_elements == 0, "tiles");
  const std::int64_t tiles = geco::cuda::tiles_of(operand), least = operand.elements / (8 * geco::cuda::kThreads);
  expect(tiles >= least && tiles <= 4 * least + 1, "most threads of most tiles to have elements");
  expect(operand.blocks > 0 && operand.blocks <= 132 * 12 + 1, "four waves of blocks at most");
  arrays::Sizes last = sizes;
  for (std::int64_t& index : last) --index;
  expect(holds(plan, look_at_tile(plan, 0, 0), {0, 0, 0}), "the first tile to hold the first element");
  for (std::int64_t from : {tiles - 1, tiles - 1 - operand.blocks, tiles / 3, std::int64_t{1}}) {
    expect(holds(plan, look_at_tile(plan, tiles - 1, from), offsets(input, last)), "the last one to hold the last");
  }
}

inline void plans_beyond_32_bits() {
  const Layout dense = Layout::kContiguous, channels_last = Layout::kChannelsLast;
  const arrays::Sizes flat{1, 1, 1, (std::int64_t{5} << 30) + 7}, images{11, 3, 8192, 8191}, maps{9, 512, 800, 700};
  for (const arrays::Sizes& sizes : {flat, images, maps}) {
    std::int64_t elements = 1;
    for (std::int64_t size : sizes) elements *= size;
    for (std::int64_t shift : {0, 1}) {
      scenario = "plan of " + std::to_string(elements) + " elements with a shift of " + std::to_string(shift);
      const geco::cuda::Plan plan = odd_sizes::plan_of(nowhere(sizes, dense, dense, shift, shift, shift == 0));
      const geco::cuda::Operand& operand = plan.operands[0];
      const std::int64_t head = shift == 0 ? 0 : 3;
      expect(operand.head == head && operand.elements == elements, "all elements, after the head");
      expect(operand.vectorised_elements == (elements - head) / 4 * 4, "all but the ends in vectors");
      expect(operand.stream == (shift == 0) && operand.vectors == 8, "a gradient past the caches, all loads in flight");
      expect(operand.blocks > 0 && operand.blocks <= 132 * 12, "four waves of blocks at most");
    }
    expect_tiles(sizes, nowhere(sizes, dense, dense, 0, 1, true));
    expect_tiles(sizes, nowhere(sizes, dense, dense, 1, 1, true));
    if (sizes[1] == 1) continue;
    expect_tiles(sizes, nowhere(sizes, channels_last, dense, 0, 0, true));
    expect_tiles(sizes, nowhere(sizes, dense, channels_last, 0, 0, false));
  }
}

// `many`: examples, more than a grid's second dimension could count.
inline void all(std::int64_t many) {
  misaligned_bases();
  sizes_around_vectors();
  crops();
  transposed_operands();
  many_examples(many);
  plans_beyond_32_bits();
}

}  // namespace odd_sizes
