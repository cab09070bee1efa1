# Warning and hardening flags, once, PRIVATE to each of our targets through one interface target.
add_library(tessera_warnings INTERFACE)
target_compile_options(tessera_warnings INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wnon-virtual-dtor -Wmissing-declarations
  # FMA is written where it is meant; the compiler must not make one (same bits on every ISA).
  -ffp-contract=off
  -fstack-protector-strong)
if(TESSERA_WERROR)
  target_compile_options(tessera_warnings INTERFACE -Werror)
endif()
if(NOT TESSERA_SANITIZE)
  target_compile_options(tessera_warnings INTERFACE $<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2>)
endif()
target_compile_definitions(tessera_warnings INTERFACE _GLIBCXX_ASSERTIONS)
