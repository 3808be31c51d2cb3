"""The loaded library: calls with their return codes turned into errors, and device memory.

One object for both builds: what runs on the host build in a test runs on a GPU unchanged.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

from centermask_edge.errors import KernelError
from centermask_edge.kernels.build import (
    build,
    cuda_recipe,
    driver_recipe,
    host_recipe,
)
from centermask_edge.kernels.nvrtc import cubin, find_nvrtc, prefers_nvrtc

ABI = 1  # CM_ABI of kernels/include/centermask/types.h
FLOAT32, FLOAT16, INT8 = 0, 1, 2


class Library:
    """The kernels of one build.

    Args:
        path: the shared library.

    Raises:
        KernelError: it cannot be loaded, or was built from another interface.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle = ctypes.CDLL(str(path))
            abi = int(self._handle.cm_abi())
        except (OSError, AttributeError) as error:
            raise KernelError(
                f"{path} is not a library of these kernels ({error}); remove it and run: "
                "centermask-edge kernels build"
            ) from None
        if abi != ABI:
            raise KernelError(
                f"{path} has kernel interface {abi}, {ABI} is wanted; remove it and run: "
                "centermask-edge kernels build"
            )
        self._handle.cm_error_text.restype = ctypes.c_char_p

    def check(self, code: int, what: str) -> None:
        """Turns a return code into an error.

        Raises:
            KernelError: the code is not 0.
        """
        if code != 0:
            text = self._handle.cm_error_text(code).decode()
            raise KernelError(f"{what} failed with code {code}: {text}")

    def call(self, name: str, params: ctypes.Structure, stream: int = 0) -> None:
        """Queues a kernel.

        Args:
            name: without the prefix ``cm_``.
            params: its parameter struct.
            stream: a raw ``cudaStream_t``.

        Raises:
            KernelError: the struct has another size than the library's, the arguments are
                refused, or CUDA reports an error.
        """
        size = getattr(self._handle, f"cm_{name}_params_size")
        size.restype = ctypes.c_size_t
        assert size() == ctypes.sizeof(params), f"{type(params)} does not mirror the C struct"
        function = getattr(self._handle, f"cm_{name}")
        code = function(ctypes.byref(params), ctypes.c_void_p(stream))
        self.check(code, name)

    def bytes_of(self, name: str, params: ctypes.Structure) -> int:
        """What ``cm_<name>(params)`` answers, a number of bytes."""
        function = getattr(self._handle, f"cm_{name}")
        function.restype = ctypes.c_size_t
        return int(function(ctypes.byref(params)))

    def fill(self, name: str, params: ctypes.Structure, memory: int) -> None:
        """``cm_<name>(params, memory)``: writes a table into CPU memory.

        Raises:
            KernelError: the parameters are refused.
        """
        function = getattr(self._handle, f"cm_{name}")
        self.check(function(ctypes.byref(params), ctypes.c_void_p(memory)), name)

    def alloc(self, size: int) -> int:
        """Address of ``size`` bytes of device memory, aligned to 256 bytes."""
        address = ctypes.c_void_p()
        code = self._handle.cm_memory_alloc(ctypes.byref(address), ctypes.c_size_t(size))
        self.check(code, f"allocating {size} bytes")
        return address.value or 0

    def free(self, address: int) -> None:
        """Gives memory back."""
        self.check(self._handle.cm_memory_free(ctypes.c_void_p(address)), "freeing memory")

    def upload(self, device: int, host: int, size: int) -> None:
        """Copies bytes from the CPU to the device."""
        arguments = (ctypes.c_void_p(device), ctypes.c_void_p(host), ctypes.c_size_t(size))
        self.check(self._handle.cm_memory_upload(*arguments), "an upload")

    def download(self, host: int, device: int, size: int) -> None:
        """Copies bytes from the device to the CPU, after everything queued before."""
        arguments = (ctypes.c_void_p(host), ctypes.c_void_p(device), ctypes.c_size_t(size))
        self.check(self._handle.cm_memory_download(*arguments), "a download")

    def synchronize(self, stream: int = 0) -> None:
        """Waits for everything queued on the stream."""
        self.check(self._handle.cm_synchronize(ctypes.c_void_p(stream)), "waiting for a stream")

    def device_name(self) -> str:
        """Name of the current device; ``host`` for the host build."""
        text = ctypes.create_string_buffer(256)
        code = self._handle.cm_device_name(text, ctypes.c_size_t(len(text)))
        self.check(code, "asking for the device")
        return text.value.decode()

    def capability(self) -> int:
        """Compute capability as 10 * major + minor; 0 for the host build."""
        number = ctypes.c_int()
        code = self._handle.cm_device_capability(ctypes.byref(number))
        self.check(code, "asking for the device")
        return number.value

    def load_cubin(self, code: bytes | None) -> None:
        """Driver build only: the machine code whose kernels are launched from now on.

        Args:
            code: of a cubin; None finds out about the driver and the device only.

        Raises:
            KernelError: there is no driver or GPU, or the code is not for it.
        """
        self.check(self._handle.cm_driver_load(code), "loading the kernels through libcuda.so.1")

    def configure_host(self, order: int = 0, shared_bytes: int = 227 * 1024) -> None:
        """Host build only: the order in which threads run, and the shared memory of a block.

        Args:
            order: 0 for the threads' own order, 1 for the reverse, others seed random ones.
            shared_bytes: at most 228 KiB.
        """
        code = self._handle.cm_host_configure(ctypes.c_uint32(order), ctypes.c_size_t(shared_bytes))
        self.check(code, "configuring the host build")


@cache
def load_host() -> Library:
    """The kernels on the CPU, built if needed.

    Raises:
        KernelError: there is no C++ compiler, or it refuses.
    """
    return Library(build(host_recipe()))


@cache
def load_cuda(architectures: tuple[int, ...] | None = None) -> Library:
    """The kernels on the GPU, built if needed: by nvcc, or by NVRTC and a C++ compiler.

    Args:
        architectures: what nvcc builds for, all it knows where None. NVRTC builds for the GPU
            that is present.

    Raises:
        KernelError: there is no compiler, it refuses, or (NVRTC) there is no GPU.
    """
    nvrtc = find_nvrtc() if prefers_nvrtc() else None
    if nvrtc is None:
        return Library(build(cuda_recipe(architectures)))
    library = Library(build(driver_recipe()))
    library.load_cubin(None)
    library.load_cubin(cubin(nvrtc, library.capability()).read_bytes())
    return library
