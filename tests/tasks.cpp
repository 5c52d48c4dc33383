// Checks how the CPU kernels divide planes into tasks and strips (cpu/march/task_rows.h, cpu/division.h), for
// all small sizes and without computing a pixel. If a division breaks one of these rules, prints both and
// exits with status 1:
//
//   - The rows that tasks own are disjoint and cover [0, n); the outputs cover [0, output_length()).
//   - A march reads each row that it owns exactly once, so that pixel terms count each pixel exactly once.
//   - A march has read every row that the windows of its outputs see, and has the derivatives at every output
//     that sees a row when it completes that row's gradient.
//   - Sums go to segments that the task has.
//   - Strips follow the same rules along the columns.
#include <cstdio>
#include <cstdlib>
#include <set>
#include <tuple>
#include <vector>

#include "cpu/division.h"

namespace {

using namespace ssim_fused;
using namespace ssim_fused::cpu;

int64_t checked = 0;
Axis current{};
const char* what_is_current = "";

void require(bool holds, const char* rule) {
  if (holds) return;
  std::printf("%s of n=%lld radius=%lld pad=%lld reflects=%d, division %lld: %s\n", what_is_current,
              static_cast<long long>(current.n), static_cast<long long>(current.radius),
              static_cast<long long>(current.pad), current.reflects, static_cast<long long>(checked), rule);
  std::exit(1);
}

void require_all_one(const std::vector<int>& counts, const char* rule) {
  for (int count : counts) require(count == 1, rule);
}

void check_tasks(const Axis& axis, const Division& division, bool with_gradient) {
  const int64_t length = axis.output_length();
  std::vector<int> rows(axis.n), outputs(length), read(axis.n), stored(length), gradients(axis.n);
  require(division.tasks_down >= 1, "there is a task");
  for (int64_t k = 0; k < division.tasks_down; ++k) {
    const TaskRows task = division.task(axis, k, with_gradient);
    require(task.rows.begin >= 0 && task.rows.end <= axis.n, "rows lie inside the input");
    require(task.rows.length() > 0, "a task owns a row");
    require(task.outputs.begin >= 0 && task.outputs.end <= length, "outputs lie inside the map");
    require(task.outputs.length() > 0, "a task owns an output");
    require(task.rows.begin % kSegment == 0, "a task begins with a segment");
    require(task.computed.begin % kStepRows == 0, "steps begin at the same outputs in every march");
    const int64_t segments = (task.rows.length() + kSegment - 1) / kSegment;
    const auto has_segment = [&](int64_t row) {
      require(task.segment_of(row) >= 0 && task.segment_of(row) < segments, "sums have a segment");
    };
    for (int64_t row = task.rows.begin; row < task.rows.end; ++row) {
      ++rows[row];
      has_segment(row);
    }
    for (int64_t q = task.outputs.begin; q < task.outputs.end; ++q) {
      ++outputs[q];
      has_segment(axis.centre(q));
    }
    // Reads rows and computes outputs in the same order as March::run.
    const int64_t first_read = task.computed.begin - axis.pad;
    int64_t next = first_read;
    for (int64_t q = task.computed.begin; q < task.computed.end; q += kStepRows) {
      const RowRange seen = TaskRows::rows_seen(axis, q);
      require(seen.begin <= next, "no row is left out between steps");
      for (; next < seen.end; ++next) {
        require(axis.source(next) < axis.n, "rows that are read lie inside the input");
        if (next == axis.source(next) && task.rows.contains(next)) ++read[next];
      }
      for (int64_t output = q; output < q + kStepRows; ++output) {
        if (!task.outputs.contains(output)) continue;
        ++stored[output];
        require(output - axis.pad >= first_read && output - axis.pad + 2 * axis.radius < next,
                "the window of an output sees rows that were read");
      }
      if (!with_gradient) continue;
      const RowRange completed = task.completed_rows(axis, q);
      for (int64_t row = completed.begin; row < completed.end; ++row) {
        ++gradients[row];
        require(std::max<int64_t>(0, row + axis.pad - 2 * axis.radius) >= task.computed.begin,
                "the derivatives above a row are computed");
        require(std::min(length - 1, row + axis.pad) < q + kStepRows,
                "the derivatives below a row are computed");
      }
    }
  }
  require_all_one(rows, "each row belongs to one task");
  require_all_one(outputs, "each output belongs to one task");
  require_all_one(read, "each row is read once by the task that owns it");
  require_all_one(stored, "each output is computed once by the task that owns it");
  if (with_gradient) require_all_one(gradients, "each row's gradient is completed once");
  ++checked;
}

void check_strips(const Axis& columns, bool with_gradient, bool mirrors) {
  const Division division({1, 0, 0, true}, columns, 1, 1);
  const int64_t length = columns.output_length();
  std::vector<int> owned(columns.n), outputs(length);
  for (int64_t k = 0; k < division.strips; ++k) {
    const Columns c(columns, division.boundary(columns, k), division.boundary(columns, k + 1), with_gradient,
                    mirrors);
    require(0 <= c.begin && c.begin < c.end && c.end <= columns.n, "columns lie inside the input");
    require(0 <= c.owned_begin && c.owned_begin < c.owned_end && c.owned_end <= length,
            "outputs lie inside the map");
    require(0 <= c.output_begin && c.output_begin <= c.owned_begin && c.owned_end <= c.output_end &&
                c.output_end <= length,
            "the outputs owned are computed");
    for (int64_t i = c.begin; i < c.end; ++i) ++owned[i];
    for (int64_t q = c.owned_begin; q < c.owned_end; ++q) ++outputs[q];
    // The columns that PixelRows reads: those in the windows of the outputs computed.
    require(c.output_begin - columns.pad <= c.begin &&
                c.output_end - 1 - columns.pad + 2 * columns.radius >= c.end - 1,
            "the columns owned are read");
  }
  require_all_one(owned, "each column belongs to one strip");
  require_all_one(outputs, "each output belongs to one strip");
  ++checked;
}

// Calls f with an axis for each kind of padding. "reflect" and "zero" pad by the radius, "valid" by
// nothing, and the last axis of a volume by any other number.
template <class F>
void for_each_axis(int64_t n, int64_t radius, F&& f) {
  for (const auto& [pad, reflects] :
       {std::tuple{radius, true}, std::tuple{radius, false}, std::tuple{int64_t{0}, true},
        std::tuple{radius / 2, true}, std::tuple{radius - 1, false}, std::tuple{radius + 1, true},
        std::tuple{2 * radius, true}}) {
    const Axis axis{n, radius, pad, reflects};
    // Calls with such an axis are refused by check_windows.
    if (pad < 0 || (reflects && pad >= n) || axis.output_length() <= 0) continue;
    current = axis;
    f(axis);
  }
}

}  // namespace

int main() {
  constexpr int64_t kMostRows = 400, kMostRadius = 21, kMostThreads = 64;
  const std::vector<int64_t> planes{1, 2, 3, 5, 8, 16, 32, 48, 64, 200};
  for (int64_t radius = 0; radius <= kMostRadius; ++radius) {
    for (int64_t n = 1; n <= kMostRows; ++n) {
      what_is_current = "rows";
      for_each_axis(n, radius, [&](const Axis& axis) {
        // The divisions that are checked already: most numbers of threads give one of them.
        std::set<std::tuple<int64_t, int64_t>> divisions;
        for (int64_t threads = 1; threads <= kMostThreads; ++threads) {
          for (int64_t count : planes) {
            for (bool whole : {false, true}) {
              const Division division(axis, {64, 5, 5, true}, count, threads, whole);
              if (!divisions.insert({division.rows, division.tasks_down}).second) continue;
              for (bool with_gradient : {false, true}) check_tasks(axis, division, with_gradient);
            }
          }
        }
      });
    }
    what_is_current = "columns";
    for (int64_t n = 1; n <= 2000; n += n < 700 ? 1 : 13) {
      for_each_axis(n, radius, [&](const Axis& axis) {
        for (bool with_gradient : {false, true}) check_strips(axis, with_gradient, axis.mirrors());
      });
    }
  }
  std::printf("%lld divisions\n", static_cast<long long>(checked));
}
