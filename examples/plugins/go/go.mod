module header-append

go 1.24
