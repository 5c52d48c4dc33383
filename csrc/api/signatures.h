// The signatures of all operators: the groups of arguments (arguments.h) that the schema states and the
// operator reads.
#pragma once

#include "arguments.h"

namespace ssim_fused::signatures {

using Similarity =
    Signature<Positional<Images>,
              Keywords<WindowArguments, PixelArguments, ReductionArguments, WantedOutputs, WantedGradients>>;
using SimilarityBackward = Signature<Positional<Images, UpstreamGradients>,
                                     Keywords<WindowArguments, ReductionArguments, WantedGradients>>;
using Multiscale = Signature<Positional<Images>, Keywords<WindowArguments, PixelArguments, PyramidArguments,
                                                          ReductionArguments, WantedGradients>>;
using MultiplyGradient = Signature<Positional<StoredGradient>, Keywords<FactorArguments>>;
using MultiplyGradientInPlace = Signature<Positional<StoredGradientInPlace>, Keywords<FactorArguments>>;

using Prepare = Signature<Positional<SpecNumber>,
                          Keywords<WindowArguments, PixelArguments, PyramidArguments, ReductionArguments>>;
using PreparedValue = Signature<Positional<PreparedImages>, Keywords<>>;
using Prepared = Signature<Positional<PreparedImages, PreparedGradients>, Keywords<>>;
using PreparedMultiply = Signature<Positional<StoredGradientInPlace, SpecNumber>, Keywords<>>;

}  // namespace ssim_fused::signatures
