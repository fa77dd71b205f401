"""For processes that import much and end soon: garbage collection takes a fifth of that time. Import this first."""

import gc

gc.disable()
