// The build for machines without nvcc carries its machine code as bytes, for one kind of GPU.
#pragma once

namespace cm_plugin {

// Makes that code the kernels that are launched, once; 0, or an error of the CUDA driver. Nothing
// to do in the other builds.
int load_embedded_kernels();

}  // namespace cm_plugin
