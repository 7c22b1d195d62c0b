// Buffers that end at an unmapped page, so that an access outside is noticed.
#pragma once

// While guards are watched, an access outside a buffer, or a write to a read-only one,
// is the dispatch's failure instead of the process's end.
void watch_guards();
void unwatch_guards();
