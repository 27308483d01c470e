// Reads a JSON list of YAML texts, writes a JSON list: what yaml.v3 makes of each, as the types that LocalAI's config has; "!" where it refuses.
package main

import (
	"encoding/json"
	"os"

	"gopkg.in/yaml.v3"
)

func read[T any](text string) any {
	var into struct {
		V T `yaml:"v"`
	}
	if err := yaml.Unmarshal([]byte(text), &into); err != nil {
		return "!"
	}
	return into.V
}

func main() {
	var texts []string
	if err := json.NewDecoder(os.Stdin).Decode(&texts); err != nil {
		panic(err)
	}
	answers := make([]map[string]any, len(texts))
	for i, text := range texts {
		answers[i] = map[string]any{
			"integer":  read[int](text),
			"number":   read[float64](text),
			"boolean":  read[bool](text),
			"text":     read[string](text),
			"texts":    read[[]string](text),
			"text_map": read[map[string]string](text),
			"json":     read[map[string]any](text),
		}
	}
	out := json.NewEncoder(os.Stdout)
	for _, answer := range answers {
		for kind, value := range answer {
			if _, err := json.Marshal(value); err != nil { // NaN, infinity
				answer[kind] = "!"
			}
		}
	}
	if err := out.Encode(answers); err != nil {
		panic(err)
	}
}
