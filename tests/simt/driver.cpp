// Runs one case through the CUDA kernels on the host (simt.h): `driver CASE_DIRECTORY`. The directory holds
// case.txt, one "name value ..." a line, and the pictures as raw files; test_simt.py writes it and reads the
// results, raw files again. Outputs are NaN before the kernels run, so that an element left out shows.
#define SSIM_SIMT

#include <cstdint>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "../../csrc/cuda/dispatch.cuh"
#include "files.h"

namespace {

using namespace ssim_fused;

// A picture in an allocation of exactly its size, which may begin some elements before the picture does.
template <class Element>
struct Buffer {
  std::vector<Element> elements;
  int64_t offset = 0;
  std::vector<int64_t> stride;
};

class HostLauncher {
 public:
  explicit HostLauncher(const Case& c)
      : sms_(c.one("sms", 4)),
        columns_(c.one("strip_columns", 0)),
        rows_(c.one<int64_t>("split_rows", 0)),
        single_(c.one("single_strip", 0) != 0),
        crossing_(c.one("crossing", 0) != 0) {}

  int sms() const { return sms_; }
  template <auto kernel>
  int blocks_per_sm(int, int) {
    return 2;
  }
  // The plan, or the strips and the rows of a split that the case names.
  Plan choose(Plan plan, const PlanInput& input, const std::vector<StripVariant>& variants) {
    for (size_t i = 0; i < variants.size(); ++i) {
      if (variants[i].columns == columns_ && (variants[i].step == 0) == single_) {
        plan.variant = static_cast<int>(i);
        plan.strips = strip_count(input.width, variants[i]);
      }
    }
    const int64_t all_strips = input.planes * plan.strips;
    if (rows_ > 0) {
      plan.rows = rows_;
      plan.rows_of_strip = crossing_ ? input.height : ceil_div(input.height, rows_) * rows_;
    } else if (columns_ > 0) {
      plan.rows = plan.rows_of_strip = input.height;
    }
    plan.blocks = ceil_div(all_strips * plan.rows_of_strip, plan.rows);
    const StripVariant& v = variants[static_cast<size_t>(plan.variant)];
    if (plan.strips < 1 || (columns_ > 0 && (v.columns != columns_ || (v.step == 0) != single_)))
      std::cout << "substituted 1 ";
    std::cout << "strip_columns " << variants[static_cast<size_t>(plan.variant)].columns << " strips "
              << plan.strips << " parts " << plan.parts() << " blocks " << plan.blocks << "\n";
    return plan;
  }
  template <auto kernel, class Params>
  void launch(int64_t blocks, int threads, int shared_bytes, const Params& params) {
    simt::launch(blocks, static_cast<unsigned>(threads), static_cast<size_t>(shared_bytes),
                 [&] { kernel(params); });
  }
  template <class T>
  T* scratch(int64_t count) {
    scratch_.emplace_back(static_cast<size_t>(count) * sizeof(T), char(0xff));
    return reinterpret_cast<T*>(scratch_.back().data());
  }

 private:
  int sms_, columns_;
  int64_t rows_;
  bool single_, crossing_;
  std::vector<std::vector<char>> scratch_;
};

template <class Storage>
void run_case(const Case& c) {
  using T = ComputeOf<Storage>;
  const auto shape = c.list<int64_t>("shape"), pad = c.list<int64_t>("pad");
  const bool reflects = c.one<std::string>("padding_mode", "reflect") == "reflect";
  const auto row_taps = c.list<double>("row_taps"), column_taps = c.list<double>("column_taps");

  Problem<Storage> problem{};
  problem.batch = shape.at(0);
  problem.channels = shape.at(1);
  const auto axis = [&](int64_t n, size_t taps, int64_t padding) {
    return DeviceAxis{static_cast<int>(n), static_cast<int>(taps / 2), static_cast<int>(padding), reflects};
  };
  problem.rows = axis(shape.at(2), row_taps.size(), pad.at(0));
  problem.columns = axis(shape.at(3), column_taps.size(), pad.at(1));
  Windows<T> windows{{row_taps.begin(), row_taps.end()}, {column_taps.begin(), column_taps.end()}};
  problem.c1 = static_cast<T>(c.one("c1", 1e-4));
  problem.c2 = static_cast<T>(c.one("c2", 9e-4));
  const std::vector<T> constants{problem.c1, problem.c2};
  if (c.one("constants", 0)) {
    problem.c1 = problem.c2 = T(NAN);
    problem.constants = constants.data();
  }

  std::vector<std::unique_ptr<Buffer<Storage>>> buffers;
  const auto picture = [&](const std::string& name, int64_t height, int64_t width, bool is_output) {
    auto& buffer = *buffers.emplace_back(std::make_unique<Buffer<Storage>>());
    buffer.stride = c.list<int64_t>(name + "_stride");
    buffer.offset = c.one<int64_t>(name + "_offset", 0);
    if (buffer.stride.empty()) buffer.stride = {shape[1] * height * width, height * width, width, 1};
    if (is_output) {
      int64_t last = buffer.offset;
      const int64_t sizes[] = {shape[0], shape[1], height, width};
      for (size_t d = 0; d < 4; ++d) last += (sizes[d] - 1) * buffer.stride[d];
      buffer.elements.resize(static_cast<size_t>(last + 1));
      std::memset(buffer.elements.data(), 0xff, buffer.elements.size() * sizeof(Storage));
    } else {
      buffer.elements = read<Storage>(c, name);
    }
    // As CUDA's allocations are, the buffer is aligned to far more than 16 bytes; here, malloc's 16.
    Picture<Storage> result{buffer.elements.data() + buffer.offset, {}};
    std::copy(buffer.stride.begin(), buffer.stride.end(), result.stride);
    return result;
  };
  const auto readable = [](const Picture<Storage>& p) {
    Picture<const Storage> result{p.data, {}};
    std::copy(std::begin(p.stride), std::end(p.stride), result.stride);
    return result;
  };
  problem.preds = readable(picture("preds", shape[2], shape[3], false));
  problem.target = readable(picture("target", shape[2], shape[3], false));
  const int64_t rows = problem.rows.output_length(), columns = problem.columns.output_length();
  std::vector<std::pair<std::string, Buffer<Storage>*>> outputs;
  const auto output = [&](const std::string& name, int64_t height, int64_t width) {
    const auto result = picture(name, height, width, true);
    outputs.emplace_back(name, buffers.back().get());
    return result;
  };
  if (c.has("want_map")) problem.map = output("map", rows, columns);
  if (c.has("want_grad_preds")) problem.grad_preds = output("grad_preds", shape[2], shape[3]);
  if (c.has("want_grad_target")) problem.grad_target = output("grad_target", shape[2], shape[3]);
  if (c.has("grad_map")) problem.grad_map = readable(picture("grad_map", rows, columns, false));

  double cropped = static_cast<double>(problem.channels);
  for (const DeviceAxis& a : {problem.rows, problem.columns}) {
    cropped *= static_cast<double>(std::max(0, a.output_length() - 2 * a.pad));
  }
  const double count = static_cast<double>(problem.channels * rows * columns);
  const auto weight_values = [&](const char* name) {
    const auto values = c.list<double>(name);
    return std::vector<T>(values.begin(), values.end());
  };
  const auto similarity_weights = weight_values("grad_similarity"),
             contrast_weights = weight_values("grad_contrast");
  const std::string objective = c.one<std::string>("objective", "");
  const auto weight = [](const std::vector<T>& values, double number, bool is_objective) {
    if (is_objective) return Weight<T>{nullptr, 0, 1 / number};
    return values.empty() ? Weight<T>{} : Weight<T>{values.data(), 1, 1 / number};
  };
  problem.of_similarity = weight(similarity_weights, count, objective == "similarity");
  problem.of_contrast = weight(contrast_weights, cropped, objective == "contrast_sensitivity");
  const Weights weights =
      problem.grad_map.data || (!similarity_weights.empty() && !contrast_weights.empty()) ? Weights::general
      : !contrast_weights.empty() || objective == "contrast_sensitivity" ? Weights::mean_contrast
                                                                         : Weights::mean_similarity;
  problem.wants_constants = c.one("want_grad_constants", 0) != 0;

  const auto images = static_cast<size_t>(problem.batch);
  std::vector<T> similarity(images, T(NAN)), contrast(images, T(NAN)), grad_constants(2 * images, T(NAN));
  const Results<T> results{similarity.data(), contrast.data(),
                           problem.wants_constants ? grad_constants.data() : nullptr, count, cropped};
  HostLauncher launcher(c);
  run(problem, windows, weights, results, launcher);

  write(c, "similarity", similarity);
  write(c, "contrast_sensitivity", contrast);
  if (problem.wants_constants) write(c, "grad_constants", grad_constants);
  for (const auto& [name, buffer] : outputs) write(c, name, buffer->elements);
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(argc, argv,
                     [](const Case& c, auto storage) { run_case<typename decltype(storage)::type>(c); });
}
