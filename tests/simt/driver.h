// Runs one case through the CUDA kernels on the host (simt.h): `images CASE_DIRECTORY`, or `volumes`.
// test_simt.py writes the directory, with case.txt, which has a line "name value ..." for each field, and the
// images as raw files; and it reads the results, also raw files. Outputs are NaN before the kernels run, so
// that an element that is not written shows.
#pragma once

#define SSIM_SIMT

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "../../csrc/cuda/launch/from_request.cuh"
#include "../../csrc/cuda/launch/run.cuh"
#include "files.h"
#include "host_request.h"

using namespace ssim_fused::cuda;
using ssim_fused::Objective;

// The elements of an image in an allocation of exactly their size. The image may begin after the first
// element.
template <class Element>
struct Buffer {
  std::vector<Element> elements;
};

// Memory of `scratch` ends with the launcher. Memory of `kept` is added to `kept`, if given.
class HostLauncher {
 public:
  using Memory = std::vector<std::vector<char>>;
  explicit HostLauncher(const Case& c, Memory* kept = nullptr)
      : sms_(c.one("sms", 4)),
        columns_(c.one("strip_columns", 0)),
        rows_(c.one<int64_t>("split_rows", 0)),
        l2_bytes_(c.one<int64_t>("l2_bytes", 0)),
        single_(c.one("single_strip", 0) != 0),
        crossing_(c.one("crossing", 0) != 0),
        kept_(kept ? kept : &scratch_) {}
  HostLauncher(const HostLauncher&) = delete;

  int sms() const { return sms_; }
  int64_t l2_bytes() const { return l2_bytes_; }
  template <auto kernel>
  int blocks_per_sm(int, int) {
    return 2;
  }
  // Returns the plan, or a plan with what the case names: the narrowest strips of at least `strip_columns`
  // columns, and splits of `split_rows` rows.
  Plan choose(Plan plan, const PlanInput& input, const std::vector<StripVariant>& variants) {
    const auto is_single = [](const StripVariant& v) { return v.owned == 0; };
    // Among the kernels for volumes, only those that compute gradients have variants for single strips.
    const bool single = single_ && std::any_of(variants.begin(), variants.end(), is_single);
    int chosen = -1;
    for (size_t i = 0; columns_ > 0 && i < variants.size(); ++i) {
      if (is_single(variants[i]) != single || strip_count(input.width, variants[i]) == 0) continue;
      const int columns = variants[i].columns;
      const int best = chosen < 0 ? 0 : variants[static_cast<size_t>(chosen)].columns;
      const bool is_better = columns >= columns_ ? best < columns_ || columns < best : columns > best;
      if (chosen < 0 || is_better) chosen = static_cast<int>(i);
    }
    if (chosen >= 0) {
      plan.variant = chosen;
      plan.strips = strip_count(input.width, variants[static_cast<size_t>(chosen)]);
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
    std::cout << "strip_columns " << v.columns << " single " << is_single(v) << " strips " << plan.strips
              << " parts " << plan.parts() << " blocks " << plan.blocks << "\n";
    return plan;
  }
  template <auto kernel, class Params>
  void launch(int64_t blocks, int threads, int shared_bytes, const Params& params) {
    if constexpr (requires { params.abreast; })
      std::cout << "abreast " << params.abreast << " launched " << blocks << "\n";
    simt::launch(blocks, static_cast<unsigned>(threads), static_cast<size_t>(shared_bytes),
                 [&] { kernel(params); });
  }
  std::vector<char*> scratch(const std::vector<int64_t>& bytes) { return pieces(bytes, scratch_); }
  std::vector<char*> kept(const std::vector<int64_t>& bytes) { return pieces(bytes, *kept_); }
  int device() const { return -1; }

 private:
  // Puts each piece in an allocation of exactly its size.
  static std::vector<char*> pieces(const std::vector<int64_t>& bytes, Memory& of) {
    std::vector<char*> pieces;
    for (int64_t size : bytes) {
      of.emplace_back(static_cast<size_t>(size), char(0xff));
      pieces.push_back(of.back().data());
    }
    return pieces;
  }

  int sms_, columns_;
  int64_t rows_, l2_bytes_;
  bool single_, crossing_;
  Memory scratch_, *const kept_;
};

// Calls run(problem, windows, objective, results, launcher), which runs the kernels for images or for
// volumes, if these serve the case; otherwise runs the kernels for wide windows.
template <class Storage, class Run>
void run_case(const Case& c, Run&& run) {
  using T = ComputeOf<Storage>;
  using Kept = KeptAs<Storage>;
  using Sizes = std::array<int64_t, 5>;
  // An image is a volume of one slice.
  auto shape = c.list<int64_t>("shape"), pad = c.list<int64_t>("pad"), sizes = c.list<int64_t>("sizes");
  const bool is_volume = shape.size() == 5;
  auto taps = c.list<double>("taps");
  if (!is_volume) {
    shape.insert(shape.begin() + 2, 1);
    pad.insert(pad.begin(), 0);
    sizes.insert(sizes.begin(), 1);
    taps.insert(taps.begin(), 1.0);
  }
  const bool reflects = c.one<std::string>("padding_mode", "reflect") == "reflect";

  host::Request request;
  const int64_t batch = shape.at(0);
  auto tap = taps.begin();
  for (size_t d = 0; d < 3; ++d) {
    request.windows.axes[d] = {shape.at(2 + d), sizes.at(d) / 2, pad.at(d), reflects};
    request.windows.taps[d].assign(tap, tap + sizes[d]);
    tap += sizes[d];
  }
  request.constants.c1 = c.one("c1", 1e-4);
  request.constants.c2 = c.one("c2", 9e-4);
  // The constants as a tensor: shared by all images, or with equal numbers for each.
  std::vector<T> constants;
  if (const int kind = c.one("constants", 0); kind != 0) {
    for (int64_t b = 0; b < (kind == 1 ? 1 : batch); ++b) {
      constants.push_back(static_cast<T>(request.constants.c1));
      constants.push_back(static_cast<T>(request.constants.c2));
    }
    request.constants = {NAN, NAN, constants.data(), kind == 1 ? 0 : 2, 1};
  }

  std::vector<std::unique_ptr<Buffer<Kept>>> buffers;
  const auto view_of = [&](const std::string& name, const Sizes& size) {
    host::View view{nullptr, size, {}};
    auto stride = c.list<int64_t>(name + "_stride");
    if (!is_volume) stride.insert(stride.begin() + 2, 0);
    std::copy_n(stride.begin(), 5, view.stride.begin());
    return view;
  };
  const auto buffer_of = [&](const std::string& name, const Sizes& size, bool is_output) {
    host::View view = view_of(name, size);
    auto& buffer = *buffers.emplace_back(std::make_unique<Buffer<Kept>>());
    const auto offset = c.one<int64_t>(name + "_offset", 0);
    if (is_output) {
      int64_t last = offset;
      for (size_t d = 0; d < 5; ++d) last += (size[d] - 1) * view.stride[d];
      buffer.elements.resize(static_cast<size_t>(last + 1));
      std::memset(buffer.elements.data(), 0xff, buffer.elements.size() * sizeof(Kept));
    } else {
      buffer.elements = read<Kept>(c, name);
    }
    // CUDA's allocations are aligned to far more than 16 bytes, this one to malloc's 16.
    view.data = buffer.elements.data() + offset;
    return view;
  };
  std::vector<std::vector<char>> bytes;
  const auto image = [&](const std::string& name, const Sizes& size) {
    if constexpr (std::is_same_v<Storage, Kept>) {
      return buffer_of(name, size, false);
    } else {  // pixels of the type that the case names
      host::View view = view_of(name, size);
      view.pixel_type = pixel_type(c, name + "_type");
      bytes.push_back(read<char>(c, name));
      view.data =
          bytes.back().data() + c.one<int64_t>(name + "_offset", 0) * AnyPixels::bytes(view.pixel_type);
      return view;
    }
  };
  Sizes input{}, result{shape[0], shape[1]};
  std::copy(shape.begin(), shape.end(), input.begin());
  for (size_t d = 0; d < 3; ++d) result[2 + d] = request.windows.axes[d].output_length();
  request.preds = image("preds", input);
  request.target = image("target", input);
  std::vector<std::pair<std::string, Buffer<Kept>*>> outputs;
  const auto output = [&](const std::string& name, const Sizes& size) {
    const host::View view = buffer_of(name, size, true);
    outputs.emplace_back(name, buffers.back().get());
    return view;
  };
  if (c.has("want_map")) request.map = output("map", result);
  if (c.has("want_grad_preds")) request.grad_preds = output("grad_preds", input);
  if (c.has("want_grad_target")) request.grad_target = output("grad_target", input);
  if (c.has("grad_map")) request.grad_map = buffer_of("grad_map", result, false);

  // Weights as operators pass them. The gradients of an objective are those of the distance. Gradients
  // weighted by upstream gradients are those of similarity and contrast sensitivity.
  const auto weight_values = [&](const char* name) {
    const auto values = c.list<double>(name);
    return std::vector<T>(values.begin(), values.end());
  };
  const auto similarity_weights = weight_values("grad_similarity"),
             contrast_weights = weight_values("grad_contrast");
  const std::string target_objective = c.one<std::string>("objective", "");
  const auto weight = [](const std::vector<T>& values, double number, bool is_objective) {
    if (is_objective) return host::Upstream{nullptr, 0, 1 / number};
    return values.empty() ? host::Upstream{} : host::Upstream{values.data(), 1, -1 / number};
  };
  request.of_similarity = weight(similarity_weights, request.outputs(), target_objective == "similarity");
  request.of_contrast =
      weight(contrast_weights, request.cropped_outputs(), target_objective == "contrast_sensitivity");
  const bool is_general = request.grad_map.data || (!similarity_weights.empty() && !contrast_weights.empty());
  const bool is_contrast = !contrast_weights.empty() || target_objective == "contrast_sensitivity";
  const Objective objective = is_general    ? Objective::general
                              : is_contrast ? Objective::mean_contrast
                                            : Objective::mean_similarity;

  const auto images = static_cast<size_t>(batch);
  std::vector<T> similarity(images, T(NAN)), contrast(images, T(NAN)), grad_constants(2 * images, T(NAN)),
      terms(2 * images, T(NAN));
  // The pixel term. Its slopes have the weights of a mean.
  const double ssim_weight = c.one("ssim_weight", 1.0);
  request.pixels = {pixel_term(c), c.one("pixel_eps", 0.0), 1 - ssim_weight, ssim_weight,
                    (1 - ssim_weight) / request.pixels_of_image()};
  const bool has_pixel_term = request.pixels.term != ssim_fused::PixelTerm::none;
  if (has_pixel_term) {
    request.of_similarity.scale *= ssim_weight;
    request.pixels.terms = terms.data();
  }
  request.as_distance = c.one("as_distance", 0) != 0;
  request.similarity = similarity.data();
  request.contrast = contrast.data();
  if (c.one("want_grad_constants", 0) != 0) request.grad_constants = grad_constants.data();

  const Problem<Storage> problem = problem_of<Storage>(request);
  const WindowTaps<T> windows = window_taps<T>(request);
  Results<T> results = results_of<T>(request);
  T batch_similarity = T(NAN);  // the mean, next to the value of each image
  results.batch_similarity = &batch_similarity;
  results.scale = 1.0 / static_cast<double>(batch);
  HostLauncher launcher(c);
  // A case can force small images to march too; otherwise the planner decides.
  const bool fits = fits_strip(problem) || (!is_volume && fits_exactly<kLongRadius>(problem, objective));
  const bool is_forced = c.one("strip_columns", 0) > 0;
  // The choice of the operators (launch/run.cuh), except that a case can force a march.
  const bool marches_here =
      !see_padding(problem, windows) && (is_forced ? fits : marches(problem, is_volume, objective));
  if (c.has("mask") || marches_here) {
    run(problem, windows, objective, results, launcher);
  } else {
    run_wide(problem, windows, results, launcher);
  }

  write(c, "similarity", similarity);
  write(c, "batch_similarity", std::vector<T>{batch_similarity});
  write(c, "contrast_sensitivity", contrast);
  if (has_pixel_term) write(c, "pixel_terms", terms);
  if (request.grad_constants) write(c, "grad_constants", grad_constants);
  for (const auto& [name, buffer] : outputs) write(c, name, buffer->elements);
}
