-- Health of a TrainingRun for Argo CD (Lua 5.1; Argo CD gives `obj` and no string library). README.md installs it.
-- It agrees with kstatus, which Flux and `helm --wait` use; tests/controlplane/test_gitops_health.py holds both to it.
--
-- `Suspended` is never answered: one such resource makes the whole Application Suspended. A run with spec.suspend rests
-- because Git says so, and is Healthy; a run that a queue holds back is on its way, and is Progressing.

local function health(status, message)
  return { status = status, message = message or "" }
end

if obj.metadata.deletionTimestamp ~= nil then
  return health("Progressing", "The run is being deleted.")
end

local status = obj.status or {}
-- first of all: conditions that speak of an older spec would show a change as healthy before it was looked at
if status.observedGeneration == nil or status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "The operator has not seen this generation of the spec yet.")
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function is_true(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end

if is_true("Reconciling") then
  return health("Progressing", conditions["Reconciling"].message)
end
if is_true("Stalled") then
  return health("Degraded", conditions["Stalled"].message)
end
if is_true("Ready") then
  return health("Healthy", conditions["Ready"].message)
end
return health("Progressing", "The run has no Ready condition that is True yet.")
