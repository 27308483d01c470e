// Reads a JSON list of texts, writes a JSON list: whether Go's text/template parses each.
package main

import (
	"encoding/json"
	"os"
	"text/template/parse"
)

func main() {
	var texts []string
	if err := json.NewDecoder(os.Stdin).Decode(&texts); err != nil {
		panic(err)
	}
	valid := make([]bool, len(texts))
	for i, text := range texts {
		tree := parse.New("t")
		tree.Mode = parse.SkipFuncCheck
		_, err := tree.Parse(text, "", "", map[string]*parse.Tree{})
		valid[i] = err == nil
	}
	if err := json.NewEncoder(os.Stdout).Encode(valid); err != nil {
		panic(err)
	}
}
