# Run by tessera_embedded_files at build time: writes OUT, a source file that defines FUNCTION of
# the header HEADER and holds FILES (separated by |) as raw strings.
string(REPLACE "|" ";" FILES "${FILES}")
set(source "#include \"${HEADER}\"\n\nnamespace tessera {\n\n")
string(APPEND source "std::span<const EmbeddedFile> ${FUNCTION}() {\n  static constexpr EmbeddedFile kFiles[] = {\n")
foreach(file IN LISTS FILES)
  get_filename_component(name "${file}" NAME)
  file(READ "${file}" text)
  string(APPEND source "{\"${name}\", R\"~tessera~(${text})~tessera~\"},\n")
endforeach()
string(APPEND source "  };\n  return kFiles;\n}\n\n}  // namespace tessera\n")
file(WRITE "${OUT}" "${source}")
