// MLX defines functions here for systems whose bfloat has none; the shim has them.
#pragma once
