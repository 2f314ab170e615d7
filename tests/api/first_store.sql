BEGIN TRANSACTION;
CREATE TABLE action (
	id VARCHAR NOT NULL,
	user_id INTEGER NOT NULL,
	name VARCHAR NOT NULL,
	launch JSON NOT NULL,
	last_seen DATETIME,
	date_created DATETIME NOT NULL,
	last_updated DATETIME NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (user_id, name),
	FOREIGN KEY(user_id) REFERENCES user (id)
);
INSERT INTO "action" VALUES('1dB1hwYAbCIyUZ',1,'nightly','{"pipeline": "/opt/pipeline", "params_text": "word: hello"}',NULL,'2026-11-23 02:25:18.577343','2026-11-23 02:25:18.577360');
CREATE TABLE dataset (
	id VARCHAR NOT NULL,
	user_id INTEGER NOT NULL,
	name VARCHAR NOT NULL,
	description VARCHAR,
	media_type VARCHAR,
	date_created DATETIME NOT NULL,
	last_updated DATETIME NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (user_id, name),
	FOREIGN KEY(user_id) REFERENCES user (id)
);
INSERT INTO "dataset" VALUES('oSLbQUwTZGx7BY',1,'rows',NULL,'text/csv','2026-11-23 02:25:18.509257','2026-11-23 02:25:18.523307');
CREATE TABLE dataset_version (
	dataset_id VARCHAR NOT NULL,
	version INTEGER NOT NULL,
	file_name VARCHAR NOT NULL,
	media_type VARCHAR NOT NULL,
	has_header BOOLEAN NOT NULL,
	size INTEGER NOT NULL,
	date_created DATETIME NOT NULL,
	PRIMARY KEY (dataset_id, version),
	FOREIGN KEY(dataset_id) REFERENCES dataset (id) ON DELETE CASCADE
);
INSERT INTO "dataset_version" VALUES('oSLbQUwTZGx7BY',1,'rows.csv','text/csv',0,4,'2026-11-23 02:25:18.523295');
CREATE TABLE label (
	id INTEGER NOT NULL,
	user_id INTEGER NOT NULL,
	name VARCHAR NOT NULL,
	value VARCHAR,
	resource BOOLEAN NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(user_id) REFERENCES user (id)
);
INSERT INTO "label" VALUES(1,1,'team','a',0);
CREATE TABLE pipeline (
	pipeline_id INTEGER NOT NULL,
	name VARCHAR NOT NULL,
	repository VARCHAR NOT NULL,
	description VARCHAR,
	icon VARCHAR,
	launch JSON NOT NULL,
	label_ids JSON NOT NULL,
	date_created DATETIME NOT NULL,
	last_updated DATETIME NOT NULL,
	PRIMARY KEY (pipeline_id),
	UNIQUE (name)
);
INSERT INTO "pipeline" VALUES(1,'llamaflow','/opt/pipeline','Fine-tunes large language models end to end',NULL,'{}','[]','2026-11-23 02:25:17.911567','2026-11-23 02:25:17.911582');
CREATE TABLE task (
	workflow_id VARCHAR NOT NULL,
	hash VARCHAR NOT NULL,
	task_id INTEGER NOT NULL,
	status VARCHAR NOT NULL,
	name VARCHAR NOT NULL,
	process VARCHAR NOT NULL,
	tag VARCHAR,
	exit INTEGER,
	attempt INTEGER NOT NULL,
	submit DATETIME,
	start DATETIME,
	complete DATETIME,
	duration INTEGER,
	realtime INTEGER,
	workdir VARCHAR,
	measured JSON NOT NULL,
	PRIMARY KEY (workflow_id, hash),
	FOREIGN KEY(workflow_id) REFERENCES workflow (id) ON DELETE CASCADE
);
INSERT INTO "task" VALUES('Ebxdos7xHT8w5c','ab/000001',1,'COMPLETED','GREET (1)','GREET',NULL,0,1,'2026-11-22 11:14:22.000000','2026-11-22 11:14:22.000000','2026-11-22 11:14:24.000000',NULL,1500,NULL,'{"cpus": 1, "memory": 104857600, "peakRss": 15800000}');
INSERT INTO "task" VALUES('Ebxdos7xHT8w5c','ab/000002',2,'COMPLETED','COLLECT','COLLECT',NULL,0,1,'2026-11-22 11:14:22.000000','2026-11-22 11:14:22.000000','2026-11-22 11:14:24.000000',NULL,1500,NULL,'{"cpus": 1, "memory": 104857600, "peakRss": 15800000}');
CREATE TABLE token (
	id INTEGER NOT NULL,
	user_id INTEGER NOT NULL,
	name VARCHAR NOT NULL,
	hash VARCHAR NOT NULL,
	scope VARCHAR NOT NULL,
	expires DATETIME,
	last_used DATETIME,
	date_created DATETIME NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(user_id) REFERENCES user (id),
	UNIQUE (hash)
);
INSERT INTO "token" VALUES(1,1,'n8n','c3771761bbda972419a3dcdb113949933a24c3e1b5548d5b4b66dd29d5e74274','launch',NULL,'2026-11-23 02:25:18.491886','2026-11-23 02:25:17.951011');
CREATE TABLE user (
	id INTEGER NOT NULL,
	user_name VARCHAR NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (user_name)
);
INSERT INTO "user" VALUES(1,'ana');
CREATE TABLE workflow (
	id VARCHAR NOT NULL,
	user_id INTEGER NOT NULL,
	user_name VARCHAR NOT NULL,
	run_name VARCHAR NOT NULL,
	session_id VARCHAR NOT NULL,
	project_name VARCHAR NOT NULL,
	repository VARCHAR NOT NULL,
	launch_dir VARCHAR NOT NULL,
	work_dir VARCHAR NOT NULL,
	output_dir VARCHAR,
	status VARCHAR NOT NULL,
	launch JSON NOT NULL,
	params JSON NOT NULL,
	resume BOOLEAN NOT NULL,
	revision VARCHAR,
	commit_id VARCHAR,
	script_name VARCHAR,
	profile VARCHAR,
	container VARCHAR,
	config_text VARCHAR,
	config_files JSON NOT NULL,
	manifest JSON,
	nextflow JSON,
	command_line VARCHAR,
	stats JSON,
	progress JSON NOT NULL,
	label_ids JSON NOT NULL,
	submit DATETIME NOT NULL,
	start DATETIME,
	complete DATETIME,
	duration INTEGER,
	success BOOLEAN,
	exit_status INTEGER,
	error_message VARCHAR,
	error_report VARCHAR,
	date_created DATETIME NOT NULL,
	last_updated DATETIME NOT NULL,
	ours BOOLEAN NOT NULL,
	cancelled DATETIME,
	cancel_force BOOLEAN NOT NULL,
	trace_read INTEGER NOT NULL,
	log_read INTEGER NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(user_id) REFERENCES user (id)
);
INSERT INTO "workflow" VALUES('Ebxdos7xHT8w5c',1,'ana','kept_llama_1','de1bed5e-6fa4-4f7e-bf02-2bd2867c9fa0','llamaflow','/opt/pipeline','/data/runs/Ebxdos7xHT8w5c/launch','/data/runs/Ebxdos7xHT8w5c/launch/work','/data/runs/Ebxdos7xHT8w5c/results','SUCCEEDED','{"run_name": "kept_llama_1", "pipeline": "/opt/pipeline", "params_text": "word: hello"}','{"outdir": "/data/runs/Ebxdos7xHT8w5c/results", "word": "hello"}',0,NULL,NULL,NULL,NULL,NULL,NULL,'[]',NULL,NULL,NULL,'{"succeedCount": 2, "failedCount": 0, "cachedCount": 0, "ignoredCount": 0, "computeTimeFmt": "0.0 h"}','{"workflowProgress": {"pending": 0, "submitted": 0, "running": 0, "succeeded": 2, "cached": 0, "aborted": 0, "failed": 0, "ignored": 0, "retries": 0, "cpus": 2, "cpuTime": 3000, "cpuLoad": 0, "memoryRss": 31600000, "memoryReq": 209715200, "readBytes": 0, "writeBytes": 0, "volCtxSwitch": 0, "invCtxSwitch": 0, "loadTasks": 0, "loadCpus": 0, "loadMemory": 0, "peakCpus": 0, "peakTasks": 0, "peakMemory": 0, "cpuEfficiency": 0.0, "memoryEfficiency": 15.07}, "processesProgress": [{"process": "GREET", "pending": 0, "submitted": 0, "running": 0, "succeeded": 1, "cached": 0, "aborted": 0, "failed": 0, "ignored": 0, "retries": 0, "cpus": 1, "cpuTime": 1500, "cpuLoad": 0, "memoryRss": 15800000, "memoryReq": 104857600, "readBytes": 0, "writeBytes": 0, "volCtxSwitch": 0, "invCtxSwitch": 0, "loadTasks": 0, "loadCpus": 0, "loadMemory": 0, "peakCpus": 0, "peakTasks": 0, "peakMemory": 0, "cpuEfficiency": 0.0, "memoryEfficiency": 15.07}, {"process": "COLLECT", "pending": 0, "submitted": 0, "running": 0, "succeeded": 1, "cached": 0, "aborted": 0, "failed": 0, "ignored": 0, "retries": 0, "cpus": 1, "cpuTime": 1500, "cpuLoad": 0, "memoryRss": 15800000, "memoryReq": 104857600, "readBytes": 0, "writeBytes": 0, "volCtxSwitch": 0, "invCtxSwitch": 0, "loadTasks": 0, "loadCpus": 0, "loadMemory": 0, "peakCpus": 0, "peakTasks": 0, "peakMemory": 0, "cpuEfficiency": 0.0, "memoryEfficiency": 15.07}], "totalProcesses": 2}','[]','2026-11-23 02:25:18.665437','2026-11-23 02:25:18.665437','2026-11-23 02:25:18.697404',31,1,NULL,NULL,NULL,'2026-11-23 02:25:18.665456','2026-11-23 02:25:18.697425',1,NULL,0,0,0);
CREATE INDEX workflow_of_user ON workflow (user_id, submit);
CREATE INDEX workflow_status ON workflow (status);
CREATE INDEX workflow_launch_dir ON workflow (launch_dir);
CREATE UNIQUE INDEX workflow_name ON workflow (user_id, run_name) WHERE ours;
CREATE INDEX ix_dataset_user_id ON dataset (user_id);
CREATE INDEX ix_action_user_id ON action (user_id);
CREATE INDEX ix_label_user_id ON label (user_id);
CREATE INDEX ix_task_task_id ON task (task_id);
COMMIT;
