// Windowed constraints of any patch sizes, of images of any type, strides and number of channels: as window_march.cuh,
// with what is fixed there known at run time only. Rows come one by one.
#pragma once

#include "cuda/window_block.cuh"
#include "cuda/window_column.cuh"
#include "cuda/window_measure.cuh"
#include "cuda/window_strip.cuh"

namespace geco::cuda {

template <class Real>
__device__ __forceinline__ MergeWeights<Real> weights_of(int first, int second) {
  const Real share = PatchMath::quotient(static_cast<Real>(second), static_cast<Real>(first + second));
  return {share, static_cast<Real>(first) * share};
}

// One image of an example, seen by a lane.
struct AnyPlane {
  const unsigned char* start;         // of its first column, in the first row and channel
  std::int64_t row, channel, column;  // bytes from one to the next
  DataType type;
};

// Columns beyond the image repeat its last one, so that the lane's reference is a pixel.
template <class T, class Real, int columns>
__device__ __forceinline__ void load_columns(const AnyPlane& plane, const unsigned char* from, int inside,
                                             Real (&result)[columns]) {
#pragma unroll
  for (int j = 0; j < columns; ++j) {
    result[j] = j == 0 ? Real{0} : result[j - 1];
    if (j >= inside) continue;
    result[j] = static_cast<Real>(widen(load<T, 1>(reinterpret_cast<const T*>(from + j * plane.column)).values[0]));
  }
}

template <class Real, int columns>
__device__ __forceinline__ void load_columns(const AnyPlane& plane, int row, int channel, int inside,
                                             Real (&result)[columns]) {
  const unsigned char* from = plane.start + row * plane.row + channel * plane.channel;
  switch (plane.type) {
    case DataType::kFloat16: return load_columns<Half>(plane, from, inside, result);
    case DataType::kBFloat16: return load_columns<BFloat16>(plane, from, inside, result);
    case DataType::kFloat32: return load_columns<float>(plane, from, inside, result);
    default:
      if constexpr (sizeof(Real) == 8) load_columns<double>(plane, from, inside, result);
  }
}

// Moments of the pixels of a lane's columns over some channels, as if they were one number each: sums of squares are
// means over the channels.
template <class Real, int columns>
__device__ __forceinline__ RowMoments<Real, columns> moments_of_row(const AnyPlane& hat, const AnyPlane& x, int inside,
                                                                    int row, int first_channel, int end_channel) {
  Real first_hat[columns], first_x[columns];
  load_columns(hat, row, first_channel, inside, first_hat);
  load_columns(x, row, first_channel, inside, first_x);
  RowMoments<Real, columns> result;
  auto& own = result.own;
  auto& from_left = result.from_left;
  own.from = reference_at(first_hat[columns - 1], first_x[columns - 1]);
  from_left.from = to_the_left(own.from, 1);
#pragma unroll
  for (int j = 0; j < columns; ++j) own.of[j] = {0, 0, 0, 0, 0};
#pragma unroll 1
  for (int c = first_channel + 1; c < end_channel; ++c) {
    Real next_hat[columns], next_x[columns];
    load_columns(hat, row, c, inside, next_hat);
    load_columns(x, row, c, inside, next_x);
    const auto by = weights_of<Real>(c - first_channel, 1);
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      own.of[j] = merged(own.of[j], Moments<Real>{next_hat[j] - first_hat[j], next_x[j] - first_x[j], 0, 0, 0}, by);
    }
  }
  const Real share = PatchMath::quotient(Real{1}, static_cast<Real>(end_channel - first_channel));
#pragma unroll
  for (int j = 0; j < columns; ++j) {
    Moments<Real>& m = own.of[j];
    m = {m.mean_hat, m.mean, m.m2_hat * share, m.m2 * share, m.co * share};
    from_left.of[j] = {m.mean_hat + (first_hat[j] - from_left.from.hat), m.mean + (first_x[j] - from_left.from.x),
                       m.m2_hat, m.m2, m.co};
    m.mean_hat += first_hat[j] - own.from.hat;
    m.mean += first_x[j] - own.from.x;
  }
  return result;
}

// Of runs of lanes that lie beside each other the one of `count` of them, by doubling: from this lane on or (left) up
// to it. A lane counts `numbers`.
template <bool left, class N>
__device__ __forceinline__ Windows<N, 1> run_of_lanes(Windows<N, 1> power, int count, int numbers) {
  using Real = typename RealOf<N>::type;
  Windows<N, 1> result = power;
  int done = 0;
#pragma unroll 1
  for (int length = 1;; length *= 2) {
    if (count & length) {
      if (done > 0) {
        const Windows<N, 1> beyond = left ? to_the_left(result, length) : to_the_right(result, length);
        result = joined(power, beyond, weights_of<Real>(length * numbers, done * numbers));
      } else {
        result = power;
      }
      done += length;
    }
    if (2 * length > count) return result;
    const Windows<N, 1> beyond = left ? to_the_left(power, length) : to_the_right(power, length);
    power = joined(power, beyond, weights_of<Real>(length * numbers, length * numbers));
  }
}

// values[which], without an address for an array that lies in registers.
template <class N, int count>
__device__ __forceinline__ N chosen(const N (&values)[count], int which) {
  N result = values[0];
#pragma unroll
  for (int i = 1; i < count; ++i) {
    if (i == which) result = values[i];
  }
  return result;
}

// As the functions of these names in window_row.cuh.
template <class Real, int columns>
__device__ __forceinline__ Windows<Moments<Real>, columns> along_row(const RowMoments<Real, columns>& row, int size) {
  using N = Moments<Real>;
  if constexpr (columns == 1) {
    return run_of_lanes<false>(row.own, size, 1);
  } else {
    N last[columns], first[columns];
    last[columns - 1] = row.own.of[columns - 1];
#pragma unroll
    for (int j = columns - 2; j >= 0; --j) {
      last[j] = joined(row.own.of[j], last[j + 1], merge_weights<Real>(1, columns - 1 - j));
    }
    first[0] = {};
    first[1] = row.from_left.of[0];
#pragma unroll
    for (int q = 2; q < columns; ++q) {
      first[q] = joined(first[q - 1], row.from_left.of[q - 1], merge_weights<Real>(q - 1, 1));
    }
    const int least = (size - columns) / columns, most = (size - 1) / columns;
    const LaneRun<Real> whole{{last[0]}, row.own.from};
    LaneRun<Real> between[2];
    if (least > 0) between[0] = to_the_right(run_of_lanes<false>(whole, least, columns), 1);
    between[1] = between[0];
    if (most > least) {
      const auto longer = least > 0 ? joined(whole, between[0], weights_of<Real>(columns, least * columns)) : whole;
      between[1] = to_the_right(longer, 1);
    }
    Windows<N, columns> result;
    result.from = row.own.from;
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      const int begun = columns - j, beyond = size - begun, lanes = beyond / columns, rest = beyond % columns;
      LaneRun<Real> tail{{chosen(first, rest)}, row.own.from};
      if (lanes > 0) {
        LaneRun<Real> run = lanes == least ? between[0] : between[1];
        if (rest > 0) {
          const LaneRun<Real> end{to_the_right(tail.of[0], lanes + 1), to_the_right(row.own.from, lanes)};
          run = joined(run, end, weights_of<Real>(lanes * columns, rest));
        }
        tail = run;
      } else if (rest > 0) {
        tail.of[0] = to_the_right(tail.of[0], 1);
      }
      result.of[j] = last[j];
      if (beyond == 0) continue;
      result.of[j] = joined(last[j], tail.of[0], weights_of<Real>(begun, beyond), tail.from - row.own.from);
    }
    return result;
  }
}

template <class Real, int columns>
__device__ __forceinline__ Windows<PatchCoefficients<Real>, columns> over_row(
    const Windows<PatchCoefficients<Real>, columns>& row, int size) {
  using N = PatchCoefficients<Real>;
  if constexpr (columns == 1) {
    return run_of_lanes<true>(row, size, 1);
  } else {
    N first[columns], last[columns];
    first[0] = row.of[0];
#pragma unroll
    for (int j = 1; j < columns; ++j) first[j] = first[j - 1] + row.of[j];
    last[0] = {};
    last[1] = row.of[columns - 1];
#pragma unroll
    for (int q = 2; q < columns; ++q) last[q] = row.of[columns - q] + last[q - 1];

    const Windows<N, 1> whole{{first[columns - 1]}, row.from, row.weight};
    const int least = (size - columns) / columns;
    Windows<N, columns> result;
    result.from = row.from;
    result.weight = row.weight;
    const int farthest = (size - 1) / columns + 1;  // lane, of which only the last columns count
    const Real weight_of_rest = weight_of_last(row.of, (size - 1) % columns);
#pragma unroll 1
    for (int d = 1; d <= farthest; ++d) {
      const Reference<Real> from = to_the_left(row.from, d);
      const Real weight = to_the_left(d < farthest ? row.weight : weight_of_rest, d);
      if (!(weight > result.weight)) continue;
      result.from = from;
      result.weight = weight;
    }
    N between[2] = {};  // least and least + 1 whole lanes to the left
    if (least > 0) {
      const Windows<N, 1> run = to_the_left(run_of_lanes<true>(whole, least, columns), 1);
      between[0] = lowered(run.of[0], run.from - result.from);
    }
    const Windows<N, 1> next = to_the_left(whole, least + 1);
    between[1] = between[0] + lowered(next.of[0], next.from - result.from);
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      const int beyond = size - (j + 1), lanes = beyond / columns, rest = beyond % columns;
      const N end = to_the_left(chosen(last, rest), lanes + 1);
      const Reference<Real> gap = to_the_left(row.from, lanes + 1) - result.from;
      result.of[j] =
          lowered(first[j], row.from - result.from) + (lanes == least ? between[0] : between[1]) + lowered(end, gap);
    }
    return result;
  }
}

// The window of the last `size` rows, given the last row. Rows come one by one; windows of the first size - 1 of them
// are made of what the ring held before. Each level of the doubling keeps the rows it will need again; a row counts
// `numbers`.
template <class N, int columns>
__device__ __forceinline__ Windows<N, columns> down_column(Windows<N, columns> power, const Ring<N, columns>& ring,
                                                           int row, int size, int numbers) {
  using Real = typename RealOf<N>::type;
  Windows<N, columns> result = power;
#pragma unroll 1
  for (int length = 1;; length *= 2) {
    const int first = length - 1, smaller = size & first;
    const bool doubles = size >= 2 * length;
    // The smaller digits cover the last rows, this one those above them.
    if (size & length) {
      if (smaller == 0) {
        result = power;
      } else {
        const int at = doubles ? (row - smaller) & first : row % smaller;
        result = joined(ring.read(first + at), result, weights_of<Real>(length * numbers, smaller * numbers));
      }
    }
    if (!doubles) {
      if (smaller != 0) ring.write(first + row % smaller, power);
      return result;
    }
    const int at = first + (row & first);
    const Windows<N, columns> above = ring.read(at);
    ring.write(at, power);
    power = joined(above, power, weights_of<Real>(length * numbers, length * numbers));
  }
}

// Neighbouring windows of the plan that share their statistics, and where their rings begin.
template <class Real>
struct WindowGroup {
  int first, end;  // windows
  int size, stride;
  bool joint;
  Real* ring;
  int ring_lanes;
};

template <class Images, int columns>
struct AnyMarch {
  static constexpr int kColumns = columns;
  using Real = typename Images::Real;
  using Row = Windows<Moments<Real>, columns>;
  using Coefficients = Windows<PatchCoefficients<Real>, columns>;
  struct ImagePair {
    AnyPlane hat, x, gradient;
  };

  static __device__ __forceinline__ void march(const Plan& plan, const Operand& operand, const Strip& strip,
                                               const WindowShared<Real>& shared) {
    const ImagePair images = images_of(operand, strip);
    int largest = 1;
    for (int w = 0; w < plan.window_count; ++w) largest = max(largest, static_cast<int>(plan.windows[w].size));
#pragma unroll 1
    for (int top = max(strip.first_row - largest + 1, 0) - largest + 1; top < strip.end_row; ++top) {
      Coefficients total = nothing<PatchCoefficients<Real>, columns>(Reference<Real>{0, 0});
      bool found = false;
      Real* ring = shared.rings;
#pragma unroll 1
      for (int w = 0; w < plan.window_count;) {
        const Window& window = plan.windows[w];
        int end = w + 1;
        while (end < plan.window_count && plan.windows[end].shares_statistics) ++end;
        const WindowGroup<Real> group{
            w, end, window.size, window.stride, !window.per_channel, ring, plan.strips.ring_lanes};
        if (top + group.size - 1 >= max(strip.first_row - group.size + 1, 0)) {
          const Coefficients row = measured(plan, operand, strip, images, group, top, shared);
          if (top >= max(strip.first_row - group.size + 1, 0)) {
            const Coefficients box = boxes_of_row(group, top, row);
            // Windows of the channel itself come last, and then those of all channels are counted from a pixel of
            // theirs.
            total = found ? joined(box, total, MergeWeights<Real>{}) : box;
            found = true;
          }
        }
        ring += ring_numbers_of_any(group.size, columns) * group.ring_lanes;
        w = end;
      }
      if (top >= strip.first_row) write_row(plan, operand, strip, images, top, total, shared);
    }
  }

 private:
  static __device__ __forceinline__ ImagePair images_of(const Operand& operand, const Strip& strip) {
    const auto plane = [&](const void* data, std::int64_t Dimension::* stride, DataType type) {
      const std::int64_t start = strip.example * (operand.outer[0].*stride) + strip.column * (operand.inner.*stride);
      return AnyPlane{static_cast<const unsigned char*>(data) + start, operand.outer[1].*stride,
                      operand.channel.*stride, operand.inner.*stride, type};
    };
    return {plane(operand.prediction, &Dimension::prediction, operand.type_of_prediction()),
            plane(operand.target, &Dimension::target, operand.type_of_target()),
            plane(operand.gradient, &Dimension::gradient, operand.type_of_prediction())};
  }

  // The patches that begin in row `top` are complete where the windows of their size have got to, size - 1 rows further
  // down. Returns their coefficients and adds up their values.
  static __device__ __forceinline__ Coefficients measured(const Plan& plan, const Operand& operand, const Strip& strip,
                                                          const ImagePair& images, const WindowGroup<Real>& group,
                                                          int top, const WindowShared<Real>& shared) {
    Coefficients coefficients = nothing<PatchCoefficients<Real>, columns>(Reference<Real>{0, 0});
    const int row = top + group.size - 1;
    if (row >= strip.height) return coefficients;
    const bool split = operand.channels > 1;
    const int first = split && !group.joint ? strip.channel : 0;
    const int end = split && !group.joint ? strip.channel + 1 : static_cast<int>(operand.channel.size);
    Row moments =
        along_row(moments_of_row<Real, columns>(images.hat, images.x, strip.inside, row, first, end), group.size);
    const Ring<Moments<Real>, columns> ring{group.ring, group.ring_lanes};
    moments = down_column(moments, ring, row, group.size, group.size);
    coefficients.from = moments.from;
    if (top < max(strip.first_row - group.size + 1, 0) || top % group.stride != 0) return coefficients;
    const bool counts = top >= strip.first_row && (!split || !group.joint || strip.channel == 0);
    const unsigned starts = starts_of_patches<columns>(strip, group.size, group.stride);
    for (int w = group.first; w < group.end; ++w) {
      const WindowRule<Real>& window = shared.rules[w];
      const unsigned counted = counts ? starts & strip.owned : 0;
      Real sum = 0;
      with_formula_of<PatchMath>(window.kind, [&](const auto& formula) {
        sum = measure<true>(formula, window.rule, moments, starts, counted, coefficients);
      });
      shared.sums[w * kWarpSize] += static_cast<double>(sum);
    }
    coefficients.weight = weight_of_last(coefficients.of, columns);
    return coefficients;
  }

  // Their sums over the patches that cover each pixel of row `top`.
  static __device__ __forceinline__ Coefficients boxes_of_row(const WindowGroup<Real>& group, int top,
                                                              Coefficients coefficients) {
    if (top % group.stride == 0) coefficients = over_row(coefficients, group.size);
    const int rows = ring_rows_of_any(group.size);
    const int numbers_of_moments = rows * Ring<Moments<Real>, columns>::kOfLane * group.ring_lanes;
    const Ring<PatchCoefficients<Real>, columns> ring{group.ring + numbers_of_moments, group.ring_lanes};
    if (top == 0) ring.clear(rows, coefficients.from);  // no patches begin above the image
    return down_column(coefficients, ring, top + group.size - 1, group.size, 1);
  }

  // The gradient of one row and its squared errors, where windows sum up to `box`.
  static __device__ __forceinline__ void write_row(const Plan& plan, const Operand& operand, const Strip& strip,
                                                   const ImagePair& images, int row, const Coefficients& box,
                                                   const WindowShared<Real>& shared) {
    const bool split = operand.channels > 1;
    const int end = split ? strip.channel + 1 : static_cast<int>(operand.channel.size);
#pragma unroll 1
    for (int c = strip.channel; c < end; ++c) {
      const int which = shared.squared_errors > 1 ? c : 0;
      const Real coefficient = shared.squared_errors > 0 ? static_cast<Real>(shared.squared_error[which]) : Real{0};
      Real hats[columns], xs[columns], squares = 0;
      load_columns(images.x, row, c, strip.inside, xs);
      load_columns(images.hat, row, c, strip.inside, hats);
      auto* to =
          const_cast<unsigned char*>(images.gradient.start) + row * images.gradient.row + c * images.gradient.channel;
      Real gradient[columns];
#pragma unroll
      for (int j = 0; j < columns; ++j) {
        const Real hat = hats[j], x = xs[j], difference = hat - x;
        if (strip.owned >> j & 1u) squares += difference * difference;
        gradient[j] = (x - box.from.x) * box.of[j].a - (hat - box.from.hat) * box.of[j].b + box.of[j].d +
                      difference * coefficient;
      }
      if (shared.others > 0) add_other_measures(plan, operand, shared, c, strip.owned, hats, xs, gradient);
#pragma unroll
      for (int j = 0; j < columns; ++j) {
        if ((strip.owned >> j & 1u) == 0 || !operand.gradient) continue;
        write_gradient(to + j * images.gradient.column, images.gradient.type, 0, gradient[j]);
      }
      if (shared.squared_errors > 0) {
        shared.sums[(plan.window_count + which) * kWarpSize] += static_cast<double>(squares);
      }
    }
  }
};

}  // namespace geco::cuda
