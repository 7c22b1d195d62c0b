// Logging from a GPU has no meaning here.
#pragma once
