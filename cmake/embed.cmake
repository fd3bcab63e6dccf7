# cmake -DIN=page.html -DOUT=page_text.c -DNAME=page_text -P embed.cmake
# Writes a file as an array of bytes in C. A line "@name@" of it, which may be followed by more, stands for
# the file of that name in the same folder.

get_filename_component(folder ${IN} DIRECTORY)
file(READ ${IN} text)
file(GLOB parts ${folder}/*)
foreach(part IN LISTS parts)
  get_filename_component(name ${part} NAME)
  file(READ ${part} content)
  string(REPLACE "@${name}@" "${content}" text "${text}")
endforeach()
file(WRITE ${OUT}.text "${text}")
file(READ ${OUT}.text bytes HEX)
file(REMOVE ${OUT}.text)
string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE ${OUT} "const unsigned char ${NAME}[] = {\n${bytes}\n};\nconst unsigned long ${NAME}_bytes = sizeof ${NAME};\n")
