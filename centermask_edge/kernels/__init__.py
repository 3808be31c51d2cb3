"""The CUDA kernels from Python: compile, cache, load and launch them, on a GPU or on the CPU.

``toolchain`` finds compilers, ``build`` makes and caches the library, ``library`` loads it. One
module per kernel mirrors its C interface and launches it on numpy arrays; ``reference`` says in
plain numpy what each must compute, and ``cases`` generates the inputs on which both are compared,
on every machine and every backend alike. The sources are in the project's folder ``kernels/``.
"""
