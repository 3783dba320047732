// gitops prints how GitOps tools judge Kubernetes objects.
//
// Usage: gitops HEALTH.LUA < objects.json
//
// It reads a JSON list of objects and prints a JSON list of verdicts: kstatus is what Flux and `helm --wait` compute
// (their library, unchanged); argo is what Argo CD makes of the given health script. Argo CD's own code is not
// imported (it brings an application server with it): the interpreter is the same and gets the same libraries, the
// same single global `obj` and the same second of time.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// scriptTime is what Argo CD grants a health script.
const scriptTime = time.Second

// argoStatuses are the words that Argo CD accepts.
var argoStatuses = map[string]bool{
	"Healthy": true, "Progressing": true, "Degraded": true, "Suspended": true, "Missing": true, "Unknown": true,
}

type verdict struct {
	Kstatus        string `json:"kstatus"`
	KstatusMessage string `json:"kstatusMessage"`
	Argo           string `json:"argo"`
	ArgoMessage    string `json:"argoMessage"`
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "gitops:", err)
		os.Exit(1)
	}
}

func run(arguments []string, in io.Reader, out io.Writer) error {
	if len(arguments) != 1 {
		return errors.New("one argument is needed: the path of the health script")
	}
	script, err := os.ReadFile(arguments[0])
	if err != nil {
		return err
	}
	objects, err := read(in)
	if err != nil {
		return err
	}
	verdicts := make([]verdict, 0, len(objects))
	for index, object := range objects {
		judged, err := judge(object, string(script))
		if err != nil {
			return fmt.Errorf("object %d: %w", index, err)
		}
		verdicts = append(verdicts, judged)
	}
	return json.NewEncoder(out).Encode(verdicts)
}

// read takes each object through apimachinery's own decoder: whole numbers become int64, as in Argo CD and kstatus.
func read(in io.Reader) ([]*unstructured.Unstructured, error) {
	var raw []json.RawMessage
	if err := json.NewDecoder(in).Decode(&raw); err != nil {
		return nil, fmt.Errorf("standard input is not a JSON list: %w", err)
	}
	objects := make([]*unstructured.Unstructured, 0, len(raw))
	for index, text := range raw {
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(text); err != nil {
			return nil, fmt.Errorf("object %d: %w", index, err)
		}
		objects = append(objects, object)
	}
	return objects, nil
}

func judge(object *unstructured.Unstructured, script string) (verdict, error) {
	computed, err := status.Compute(object)
	if err != nil {
		return verdict{}, fmt.Errorf("kstatus: %w", err)
	}
	health, message, err := argoHealth(object, script)
	if err != nil {
		return verdict{}, fmt.Errorf("health script: %w", err)
	}
	return verdict{computed.Status.String(), computed.Message, health, message}, nil
}

// argoHealth runs the script without Lua's string, math and io libraries: a script from argocd-cm has none of them.
func argoHealth(object *unstructured.Unstructured, script string) (string, string, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		opening := lua.P{Fn: state.NewFunction(library.open), NRet: 0, Protect: true}
		if err := state.CallByParam(opening, lua.LString(library.name)); err != nil {
			return "", "", err
		}
	}
	limited, cancel := context.WithTimeout(context.Background(), scriptTime)
	defer cancel()
	state.SetContext(limited)
	state.SetGlobal("obj", toLua(state, object.Object))
	if err := state.DoString(script); err != nil {
		return "", "", err
	}
	answer, isTable := state.Get(-1).(*lua.LTable)
	if !isTable {
		return "", "", fmt.Errorf("it returned a %s, not a table", state.Get(-1).Type())
	}
	health, message := answer.RawGetString("status"), answer.RawGetString("message")
	if !argoStatuses[health.String()] {
		return "", "", fmt.Errorf("it returned the status %q, which Argo CD does not know", health.String())
	}
	if message.Type() != lua.LTString {
		return "", "", fmt.Errorf("it returned a %s as message", message.Type())
	}
	return health.String(), message.String(), nil
}

func toLua(state *lua.LState, value any) lua.LValue {
	switch known := value.(type) {
	case bool:
		return lua.LBool(known)
	case string:
		return lua.LString(known)
	case int64:
		return lua.LNumber(known)
	case float64:
		return lua.LNumber(known)
	case []any:
		list := state.CreateTable(len(known), 0)
		for _, item := range known {
			list.Append(toLua(state, item))
		}
		return list
	case map[string]any:
		table := state.CreateTable(0, len(known))
		for key, item := range known {
			table.RawSetString(key, toLua(state, item))
		}
		return table
	}
	return lua.LNil
}
