std = "luajit"
max_line_length = 110
unused_args = false

-- luaunit finds its tests as globals: Test...
files["test"] = { allow_defined_top = true }
