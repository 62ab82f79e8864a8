"""Executes Vulkan artifacts without a GPU: ExecuTorch's Android library on Mesa's software driver (lavapipe).

No wheel has ExecuTorch's Vulkan backend. The npm package react-native-executorch ships a build of it for
Android on x86-64. It is loaded here through a stand-in for Android's C library.
"""
