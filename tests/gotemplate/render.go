// Reads a JSON list of prompts, writes a JSON list: what LocalAI's evaluator makes of each, by Go's own text/template, "!" where it refuses.
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type call struct {
	Index    int    `json:"index"`
	ID       string `json:"id"`
	Type     string `json:"type"`
	Function struct {
		Name      string `json:"name,omitempty"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

type message struct {
	Role      string `json:"role"`
	Name      string `json:"name"`
	Content   string `json:"content"`
	ToolCalls []call `json:"tool_calls"`
}

type function struct {
	Name        string         `json:"name"`
	Description string         `json:"description"`
	Parameters  map[string]any `json:"parameters"`
}

type prompt struct {
	Chat         *string           `json:"chat"`
	ChatMessage  *string           `json:"chat_message"`
	Function     *string           `json:"function"`
	Roles        map[string]string `json:"roles"`
	SystemPrompt string            `json:"system_prompt"`
	Join         string            `json:"join"`
	Grammar      bool              `json:"grammar"`
	Messages     []message         `json:"messages"`
	Tools        []struct {
		Function function `json:"function"`
	} `json:"tools"`
}

type messageData struct {
	SystemPrompt, Role, RoleName, FunctionName, Content string
	MessageIndex                                        int
	Function                                            bool
	FunctionCall                                        any
	LastMessage                                         bool
}

type promptData struct {
	SystemPrompt         string
	SuppressSystemPrompt bool
	Input, Instruction   string
	Functions            []function
	MessageIndex         int
	ReasoningEffort      string
	Metadata             map[string]string
}

// The functions of github.com/Masterminds/sprig that are translated.
var functions = template.FuncMap{
	"toJson":    func(v any) string { b, _ := json.Marshal(v); return string(b) },
	"trim":      strings.TrimSpace,
	"upper":     strings.ToUpper,
	"lower":     strings.ToLower,
	"contains":  func(part, text string) bool { return strings.Contains(text, part) },
	"hasPrefix": func(part, text string) bool { return strings.HasPrefix(text, part) },
	"hasSuffix": func(part, text string) bool { return strings.HasSuffix(text, part) },
	"default": func(d, given string) string {
		if given == "" {
			return d
		}
		return given
	},
}

func render(text string, data any) string {
	var out bytes.Buffer
	parsed, err := template.New("prompt").Funcs(functions).Parse(text)
	if err == nil {
		err = parsed.Execute(&out, data)
	}
	if err != nil {
		panic(err)
	}
	return out.String()
}

func asJson(v any) string { b, _ := json.Marshal(v); return string(b) }

func (p prompt) evaluate() string {
	lines := []string{}
	system := false
	for i, m := range p.Messages {
		role := m.Role
		if len(m.ToolCalls) > 0 && role == "assistant" && p.Roles["assistant_function_call"] != "" {
			role = "assistant_function_call"
		}
		name := p.Roles[role]
		if p.ChatMessage != nil {
			var calls any
			if len(m.ToolCalls) > 0 {
				calls = m.ToolCalls
			}
			line := render(*p.ChatMessage, messageData{
				SystemPrompt: p.SystemPrompt, Role: name, RoleName: role, FunctionName: m.Name, Content: m.Content,
				MessageIndex: i, FunctionCall: calls, LastMessage: i == len(p.Messages)-1,
				Function: p.Grammar && i == len(p.Messages)-1,
			})
			if line != "" {
				lines = append(lines, line)
			}
			continue
		}
		line := ""
		if m.Content != "" {
			line = name + m.Content
		}
		if len(m.ToolCalls) > 0 {
			said := asJson(m.ToolCalls)
			if name != "" {
				said = name + " " + said
			}
			if m.Content != "" {
				line += "\n" + said
			} else {
				line = said
			}
		}
		system = system || (m.Content != "" && role == "system")
		lines = append(lines, line)
	}
	data := promptData{SystemPrompt: p.SystemPrompt, SuppressSystemPrompt: system, Input: strings.Join(lines, p.Join)}
	for _, tool := range p.Tools {
		data.Functions = append(data.Functions, tool.Function)
	}
	if p.Function != nil && len(p.Tools) > 0 {
		return render(*p.Function, data)
	}
	if p.Chat != nil {
		return render(*p.Chat, data)
	}
	return data.Input
}

func main() {
	var prompts []prompt
	if err := json.NewDecoder(os.Stdin).Decode(&prompts); err != nil {
		panic(err)
	}
	texts := []string{}
	for _, p := range prompts {
		func() {
			defer func() {
				if r := recover(); r != nil {
					texts = append(texts, "!")
				}
			}()
			texts = append(texts, p.evaluate())
		}()
	}
	if err := json.NewEncoder(os.Stdout).Encode(texts); err != nil {
		panic(err)
	}
}
