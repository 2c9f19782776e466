// Preloaded into NNI's web server (node --require), which has no password and runs what it is sent: whoever reaches its
// port owns the account. NNI 3.0 has no setting for any of this.

// Other machines: a listen() without an address gets 127.0.0.1, not "all interfaces".
const net = require('node:net');
const listen = net.Server.prototype.listen;

net.Server.prototype.listen = function (first, ...rest) {
    if (first === undefined || first === null || typeof first === 'function') // listen([callback]): any free port
        return listen.call(this, 0, '127.0.0.1', ...[first, ...rest].filter((argument) => typeof argument === 'function'));
    const isPort = typeof first === 'number' || (typeof first === 'string' && /^\d+$/.test(first));
    if (isPort) { // listen(port[, host][, backlog][, callback])
        if (typeof rest[0] === 'string' || rest[0] === null || rest[0] === undefined) rest.shift();
        return listen.call(this, first, '127.0.0.1', ...rest);
    }
    if (first !== null && typeof first === 'object' && first.port !== undefined) // listen({port, ...}[, callback])
        return listen.call(this, { ...first, host: '127.0.0.1' }, ...rest);
    return listen.call(this, first, ...rest); // a pipe or a handle
};

// So does TensorBoard, which NNI's web UI starts: by a shell, for folders where trials of a local experiment write
// nothing, and to be forgotten. It gets theirs, and the mark by which guard/processes.py ends it.
const processes = require('node:child_process');
const { spawn } = processes;

processes.spawn = function (command, words, options) {
    if (command !== 'tensorboard' || !Array.isArray(words)) return spawn.apply(this, arguments);
    const [, root] = words.join(' ').match(/:([^:]*)\/trials\/\w+\/output\/tensorboard/) ?? [];
    const own = words.flatMap((word) => word.startsWith('--bind_all ') ? ['--host=127.0.0.1', word.slice(11)] : [word])
        .map((word) => word.replace(/\/trials\/(\w+)\/output\/tensorboard/g, '/environments/local-env/trials/$1/tensorboard'));
    return spawn.call(this, command, own, {
        ...options, shell: false, env: { ...options.env, ...(root && { NNI_LOG_DIRECTORY: `${root}/log` }) } });
};

// Pages of others in a browser on this machine: their requests have another name for it, since a name of theirs may
// point to 127.0.0.1 (DNS rebinding), or another origin. A tunnel may have another port at its end.
const http = require('node:http');
const { emit } = http.Server.prototype;

const isOurs = ({ headers: { host, origin } }) => /^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/i.test(host ?? '') &&
    (origin === undefined || origin.toLowerCase() === `http://${host}`.toLowerCase());

http.Server.prototype.emit = function (event, request, answer, ...rest) {
    const asks = ['request', 'upgrade', 'checkContinue', 'checkExpectation', 'connect'].includes(event);
    if (!asks || isOurs(request)) return emit.call(this, event, request, answer, ...rest);
    const why = 'refused: only pages of this server, opened as localhost or 127.0.0.1\n';
    if (answer instanceof http.ServerResponse) answer.writeHead(403, { 'Content-Type': 'text/plain' }).end(why);
    else answer.end(`HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: ${why.length}\r\n\r\n${why}`);
    return true;
};

// NNI gives its tuner 10 s to start and connect: too few to import NNI on a busy machine. It gets 60.
const timer = globalThis.setTimeout;
const patient = function (callback, milliseconds, ...rest) {
    const ofTuner = milliseconds === 10000 && String(callback).includes('Tuner did not connect');
    return timer(callback, ofTuner ? 60000 : milliseconds, ...rest);
};
globalThis.setTimeout = Object.defineProperties(patient, Object.getOwnPropertyDescriptors(timer)); // promisify's, too
