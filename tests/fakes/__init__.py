# SPDX-License-Identifier: MIT
"""Stand-ins for one side of an interface: a machine for the kernel's Python, filters over toy header space."""
